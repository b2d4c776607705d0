"""`holdfast policies`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from holdfast.cli.main import cli
from holdfast.policies.base import PolicySpec


def test_each_policy_is_listed_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    registry = pytest.importorskip("holdfast.policies.registry")
    spec = PolicySpec("saga", "a bound", "a paper")
    monkeypatch.setattr(registry, "policy_specs", lambda: [spec])
    result = CliRunner().invoke(cli, ["policies"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split("  ")[0] == "saga"
    assert "a paper" in result.stdout


def test_list_says_what_each_policy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    lines = CliRunner().invoke(cli, ["policies"]).stdout.splitlines()
    decides = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    assert "eviction, admission" in decides["cachewise"]
    assert "admission" in decides["working-set"] and "eviction" not in decides["autellix"]
    assert "in simulation only" in decides["clairvoyant"]
    assert "routing, in a gateway" in decides["sticky"]
    assert "tool calls, in the MCP proxy" in decides["result-memory"]
    assert "tool calls, in the MCP proxy" in decides["speculation"]
    assert "Names join with +" in lines[-4]


def test_list_shows_settings_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = CliRunner().invoke(cli, ["policies"]).stdout
    assert "idle_lease_s=30.0" in text and "force_resume_s=1800.0" in text
    assert "Settings follow a name" in text
