"""Decisions stay the same: simulated runs against committed figures, to the last digit.

A change that moves a figure on purpose replaces `figures.json` in a commit of its own, which names
the figures before and after: `HOLDFAST_GOLDEN=write python -m pytest tests/golden`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FIGURES = Path(__file__).with_name("figures.json")
POLICIES = os.environ.get("HOLDFAST_GOLDEN_POLICIES", "vllm-default,holdfast,cachewise")
TIERS = {"no tier": 0, "host tier": 150_000}
MEASURED = {"policy_cpu_s", "scheduler_cpu_s"}
"""What is measured on the machine and differs from run to run."""


def simulated(host_tokens: int, path: Path) -> list[dict[str, Any]]:
    from holdfast.cli.main import cli

    options = {
        "--policies": POLICIES,
        "--seeds": 2,
        "--sessions": 5,
        "--concurrency": 4,
        "--gap-cap-s": 300,
        "--kv-tokens": 100_000,
        "--host-tokens": host_tokens,
        "--jobs": 1,
        "--json": path,
    }
    arguments = [str(part) for option in options.items() for part in option]
    result = CliRunner().invoke(cli, ["simulate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    runs: list[dict[str, Any]] = json.loads(path.read_bytes())["runs"]
    return [{key: value for key, value in run.items() if key not in MEASURED} for run in runs]


@pytest.mark.parametrize("tier", TIERS)
def test_figures_are_the_committed_ones(tier: str, tmp_path: Path) -> None:
    if TIERS[tier] and not offloads():
        pytest.skip("this vLLM has no tiers that Holdfast supports")
    runs = simulated(TIERS[tier], tmp_path / "runs.json")
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if os.environ.get("HOLDFAST_GOLDEN") == "write":
        FIGURES.write_text(json.dumps({**known, tier: runs}, indent=1) + "\n")
        return
    assert runs == known[tier]


def offloads() -> bool:
    from holdfast.errors import HoldfastError
    from holdfast.vllm.versions import check_tiers, engine_version

    try:
        check_tiers(engine_version())
    except HoldfastError:
        return False
    return True
