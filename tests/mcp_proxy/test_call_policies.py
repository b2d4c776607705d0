"""Call policies are found by name, switched by a file, and set aside when they fail."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import anyio
import pytest
from rich.console import Console
from tests.mcp_proxy.test_proxy import ask, old_file, proxied

from holdfast.bench.engine_totals import engine_explanation
from holdfast.errors import ConfigError
from holdfast.mcp_proxy.call_policies import CallPolicies, PolicyActions
from holdfast.mcp_proxy.policy_file import read_policies
from holdfast.policies.calls import AskedCall, CallAsked, CallPolicy, KnownResult, Prediction
from holdfast.policies.registry import CALL_POLICIES
from holdfast.policies.spec import PolicySpec
from holdfast.report.explanation_text import explanation_text

CALL = AskedCall(1, "read", {}, "read", False, 1.0)
PLUGIN = '''"""A call policy of another package."""
from holdfast.policies.calls import CallAnswered, CallPolicy
from holdfast.policies.spec import PolicySpec


class LastResult(CallPolicy):
    spec = PolicySpec("last-result", "Keeps the last result.", "a test")
    known = None

    def observe(self, event):
        if isinstance(event, CallAnswered):
            self.known = event.known or self.known

    def recall(self, call):
        return self.known
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a call policy, as an installer leaves it, here and for child processes."""
    (tmp_path / "last_result.py").write_text(PLUGIN)
    metadata = tmp_path / "last_result-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: last-result\nVersion: 0.1\n")
    points = "[holdfast.call_policies]\nlast-result = last_result:LastResult\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = [str(tmp_path), *(each for each in sys.path if each)]
    monkeypatch.setenv("PYTHONPATH", ":".join(path))
    importlib.invalidate_caches()
    return tmp_path


class Broken(CallPolicy):
    """Fails at one question."""

    spec = PolicySpec("broken", "Fails.", "this test")

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def observe(self, event: object) -> None:
        self.fail("observe")

    def recall(self, call: AskedCall) -> KnownResult | None:
        self.fail("recall")
        return None

    def predict(self, session: int) -> Sequence[Prediction]:
        self.fail("predict")
        return [Prediction("read", {"x": object()})] if self.where == "arguments" else []

    def fail(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(where)


@pytest.mark.parametrize("where", ["observe", "recall", "predict", "arguments"])
def test_policy_that_fails_is_set_aside(where: str, caplog: pytest.LogCaptureFixture) -> None:
    actions = PolicyActions()
    policies = CallPolicies([Broken(where), CALL_POLICIES.build("result-memory", {})], actions)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            policies.observe(CallAsked(CALL))
            assert not list(policies.recall(CALL))
            assert not list(policies.predict(1))
    assert actions == {("broken", "failed"): 1}
    (record,) = caplog.records
    assert record.getMessage() == "policy broken failed and is off until the proxy restarts"


@pytest.mark.usefixtures("installed")
def test_policy_of_another_package_answers(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "policies.toml"
    file.write_text("[last-result]\n")
    path = old_file(tmp_path / "a.txt", "first")

    async def run() -> None:
        options = "--policies", str(file), "--metrics-port", "0"
        async with proxied(log, *options) as session:
            await session.list_tools()
            for _ in range(3):
                answer = await ask(session, "read_file", path=path)
                assert answer["content"][0]["text"] == "first"
            await ask(session, "write_file", path=path, content="second")
            assert (await ask(session, "read_file", path=path))["content"][0]["text"] == "second"
            url = metrics_url(tmp_path / "stderr")
            metrics = await anyio.to_thread.run_sync(read_metrics, url)
            labels = 'action="answered",policy="last-result"'
            assert f"holdfast_mcp_policy_actions_total{{{labels}}} 2.0" in metrics
            address = url.removesuffix("/metrics")
            found = await anyio.to_thread.run_sync(engine_explanation, address)
            assert found.verdict.startswith("2 of 5 tool calls had their result")
            assert found.actions == {"last-result": {"answered": 2}}
            text = io.StringIO()
            Console(file=text, width=100).print(explanation_text(found, 1))
            assert "last-result: answered 2" in text.getvalue()

    anyio.run(run)

    assert log.read_text().splitlines() == ["read a.txt", "write a.txt", "read a.txt"]


def metrics_url(errors: Path) -> str:
    return errors.read_text().split("metrics at ")[1].split()[0]


def read_metrics(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def test_file_without_tables_remembers_nothing(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "policies.toml"
    file.write_text("")
    path = old_file(tmp_path / "a.txt", "first")

    async def run() -> None:
        async with proxied(log, "--policies", str(file)) as session:
            await session.list_tools()
            for _ in range(2):
                await ask(session, "read_file", path=path)

    anyio.run(run)

    assert log.read_text().splitlines() == ["read a.txt"] * 2


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[speculation]\nwaste = 1\n", "has no setting 'waste'"),
        ("[speculation]\nwaste_weight = -1\n", "waste_weight"),
        ("[tool-rules]\n", "unknown policy 'tool-rules'"),
        ("speculation = true\n", "'speculation' must be a table"),
        ("[", "is not TOML"),
    ],
)
def test_wrong_file_says_what_is_wrong(tmp_path: Path, content: str, error: str) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=error):
        read_policies(file)


def test_tables_are_asked_in_their_order_with_their_settings(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text("[speculation]\nwaste_weight = 1.5\n[result-memory]\nmax_mib = 2\n")
    build = read_policies(file)
    first, second = build()
    assert (first.spec.name, first.settings.waste_weight) == ("speculation", 1.5)
    assert (second.spec.name, second.settings.max_mib) == ("result-memory", 2.0)
    assert build()[0] is not first  # each tenant has its own
