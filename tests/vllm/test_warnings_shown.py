"""What an operator must read is printed, whatever else the process has imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

SERVER, OURS = "vllm.entrypoints.openai.api_server", "holdfast.vllm.metrics"
WARN = "import logging; logging.getLogger('holdfast.vllm.metrics').warning('the KV cache thrashes')"


@pytest.mark.parametrize("modules", [(SERVER, OURS), (OURS, SERVER)])
def test_warnings_are_printed_beside_vllms_server(modules: tuple[str, ...]) -> None:
    script = "\n".join([*(f"import {one}" for one in modules), WARN])
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "the KV cache thrashes" in found.stderr


def test_an_operators_own_level_stays() -> None:
    level = "import logging; logging.getLogger('holdfast').setLevel(logging.ERROR)"
    script = "\n".join([level, f"import {OURS}", WARN])
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "thrashes" not in found.stderr
