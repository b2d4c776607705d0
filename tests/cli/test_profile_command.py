"""`holdfast profile`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast.cli.main import cli
from holdfast.sim.profile_file import load_profile


def shown(name: str) -> dict[str, str]:
    """The rows of `holdfast profile show`."""
    result = CliRunner().invoke(cli, ["profile", "show", name])
    assert result.exit_code == 0, result.output
    rows = (re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_show_prints_overhead_and_fitted_range() -> None:
    rows = shown("2xh100-qwen3-coder-30b-fp8")
    assert rows["request_overhead_s_per_token"] == "2.68e-06"
    assert rows["fitted_decodes"] == "11"
    assert rows["fitted_decode_context_tokens"] == "1,380,000"
    assert rows["fitted_prompt_tokens"] == "206,000"


def test_show_prints_points_of_nonlinear_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = shown("2xh100-qwen3-coder-30b-fp8-full")
    assert rows["decode_s_per_context_token"] == "0"
    assert rows["decode_context_s at 1,600,000 tokens"] == "0.0184"
    assert rows["decode_context_s at 2,150,000 tokens"] == "0.0333"


def test_shown_toml_loads_as_the_same_profile(tmp_path: Path) -> None:
    name = "2xh100-qwen3-coder-30b-fp8-full"
    result = CliRunner().invoke(cli, ["profile", "show", name, "--toml"])
    (tmp_path / "mine.toml").write_text(result.stdout)
    assert load_profile(tmp_path / "mine.toml") == load_profile(name)
