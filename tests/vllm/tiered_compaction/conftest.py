"""The environment of compaction's engine; skipped on vLLM without tiers."""

from __future__ import annotations

import pytest
from tests.vllm.compaction.conftest import engine_environment, model, reference

from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

__all__ = ["engine_environment", "model", "reference"]


@pytest.fixture(scope="session")
def has_tiers(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")
