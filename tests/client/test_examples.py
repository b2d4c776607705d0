"""The examples on the real engine: the sessions, parents and agents that arrive there.

One server is started for the whole file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engine_client import EngineClient
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

ROOT = Path(__file__).parents[2]
TOKEN = "a token of the tests"
_KV_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Ran:
    """What an engine logged about one example, in order."""

    turns: list[dict[str, Any]]
    ends: list[dict[str, Any]]
    commands: list[dict[str, Any]]

    @property
    def told(self) -> list[tuple[str, str]]:
        """Commands and their outcomes."""
        return [(command["command"], command["outcome"]) for command in self.commands]


@dataclass(frozen=True, slots=True)
class Engine:
    """A server, and the log of its decisions."""

    server: EngineServer
    log: Path

    def wait_for_count(self, metric: str, label: str, value: str, num: int) -> None:
        """Wait until a counter has a value of a label so often."""
        client = EngineClient(self.server)
        until(lambda: client.by_label(metric, label)[value] >= num)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Decisions of one kind, in order."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def run(self, example: str, *, num_turns: int, num_commands: int) -> Ran:
        """Run an example; returns what arrives, at least so much."""
        wanted = {"turn_arrived": num_turns, "turn_ended": num_turns, "command": num_commands}
        before = {name: len(self.events(name)) for name in wanted}
        subprocess.run(
            [sys.executable, ROOT / "examples" / example, self.server.url, TOKEN],
            check=True,
            timeout=LONGEST_S,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )

        def arrived() -> Ran | None:
            found = {name: self.events(name)[num:] for name, num in before.items()}
            has_all = all(len(found[name]) >= num for name, num in wanted.items())
            return Ran(*found.values()) if has_all else None

        ran = until(arrived)
        assert ran is not None
        return ran


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    pytest.importorskip("vllm")
    log = tmp_path_factory.mktemp("decisions") / "log.jsonl"
    options = EngineOptions(
        model=build_tiny_model(tmp_path_factory.mktemp("model")),
        kv_tokens=_KV_TOKENS,
        max_model_len=_KV_TOKENS,
        config=HoldfastConfig(strict=True, decision_log=str(log)),
        environ={"HOLDFAST_ROUTES_TOKEN": TOKEN},
    )
    with EngineServer("holdfast", options, tmp_path_factory.mktemp("server") / "log") as server:
        yield Engine(server, log)


def test_coding_agent_is_one_session(engine: Engine) -> None:
    ran = engine.run("coding_agent.py", num_turns=4, num_commands=9)
    assert len(ran.turns) == 4
    assert len({turn["session"] for turn in ran.turns}) == 1
    assert {turn["agent_id"] for turn in ran.turns} == {"coder"}
    tool = [("tool_started", "accepted"), ("tool_finished", "accepted")]
    assert ran.told[:6] == tool * 3
    # The last turn was announced, so that the session was closed before its tool ran.
    assert ran.told[6] == ("tool_started", "rejected")
    assert ran.commands[0]["tool"] == "py_compile"
    assert ran.commands[0]["session_id"] == ran.turns[0]["session_id"]


def test_sub_agents_have_the_lead_as_parent(engine: Engine) -> None:
    ran = engine.run("sub_agents.py", num_turns=5, num_commands=4)
    first, *inner, last = ran.turns
    assert first["session_id"] == last["session_id"]
    assert [turn["agent_id"] for turn in ran.turns] == ["lead", *["researcher"] * 3, "lead"]
    assert {turn["parent_session_id"] for turn in inner} == {first["session_id"]}
    assert len({turn["session_id"] for turn in inner}) == 3
    closed = {command["session_id"] for command in ran.commands}
    assert closed == {turn["session_id"] for turn in ran.turns}
    assert {name for name, _ in ran.told} == {"close_session"}
    engine.wait_for_count("holdfast_commands_total", "command", "close_session", num=4)


def test_nodes_of_a_graph_are_agents_of_a_workflow(engine: Engine) -> None:
    pytest.importorskip("langgraph")
    ran = engine.run("langgraph_workflow.py", num_turns=8, num_commands=6)
    (workflow,) = {turn["workflow_id"] for turn in ran.turns}
    for turn in ran.turns:
        assert turn["session_id"] == f"{workflow}/{turn['agent_id']}"
        assert turn["parent_session_id"] is None
    agents = [turn["agent_id"] for turn in ran.turns]
    assert agents[0] == agents[4] == "plan"
    assert agents[3] == agents[7] == "edit"
    assert set(agents[1:3]) == set(agents[5:7]) == {"intro", "body"}
    assert ran.told[0] == ("declare_workflow", "accepted")
    assert ran.told[-1] == ("end_workflow", "accepted")
    assert {command.get("workflow_id") for command in ran.commands} == {workflow, None}


def test_chat_goes_on_under_its_name(engine: Engine) -> None:
    ran = engine.run("anthropic_chat.py", num_turns=3, num_commands=0)
    assert {turn["session_id"] for turn in ran.turns} == {"chat-of-ada"}
    assert len({turn["session"] for turn in ran.turns}) == 1
    assert [end["kind"] for end in ran.ends] == ["human"] * 3
    engine.wait_for_count("holdfast_hints_total", "field", "turn_end", num=3)
    engine.wait_for_count("holdfast_hints_total", "field", "expected_gap_s", num=3)
