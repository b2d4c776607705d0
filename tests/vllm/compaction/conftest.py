"""The environment of an engine in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vllm.compaction.world import Reference, build_model

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HOLDFAST_STRICT": "1",
    "PYTHONHASHSEED": "0",  # read by vLLM, whose prefix hashes are otherwise new at each start
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it binds the process that runs the tests
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


@pytest.fixture(scope="session", autouse=True)
def engine_environment() -> Iterator[None]:
    """Set the variables while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model."""
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def reference(model: Path) -> Reference:
    """The same model in transformers."""
    return Reference(model)
