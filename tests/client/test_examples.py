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
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

ROOT = Path(__file__).parents[2]
_KV_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Engine:
    """A server, and the log of its decisions."""

    url: str
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Decisions of one kind, in order."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def turns_of(self, example: str, *, num_turns: int) -> list[dict[str, Any]]:
        """Run an example and return the turns that arrived meanwhile."""
        num_before = len(self.events("turn_arrived"))
        subprocess.run(
            [sys.executable, ROOT / "examples" / example, self.url],
            check=True,
            timeout=LONGEST_S,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        until(lambda: len(self.events("turn_arrived")) >= num_before + num_turns)
        return self.events("turn_arrived")[num_before:]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    pytest.importorskip("vllm")
    log = tmp_path_factory.mktemp("decisions") / "log.jsonl"
    options = EngineOptions(
        model=build_tiny_model(tmp_path_factory.mktemp("model")),
        kv_tokens=_KV_TOKENS,
        max_model_len=_KV_TOKENS,
        config=HoldfastConfig(strict=True, decision_log=str(log)),
    )
    with EngineServer("holdfast", options, tmp_path_factory.mktemp("server") / "log") as server:
        yield Engine(server.url, log)


def test_coding_agent_is_one_session(engine: Engine) -> None:
    turns = engine.turns_of("coding_agent.py", num_turns=4)
    assert len({turn["session"] for turn in turns}) == 1
    assert {turn["agent_id"] for turn in turns} == {"coder"}
    assert len(turns) == 4


def test_sub_agents_have_the_lead_as_parent(engine: Engine) -> None:
    turns = engine.turns_of("sub_agents.py", num_turns=5)
    first, *inner, last = turns
    assert first["session_id"] == last["session_id"]
    assert [turn["agent_id"] for turn in turns] == ["lead", *["researcher"] * 3, "lead"]
    assert {turn["parent_session_id"] for turn in inner} == {first["session_id"]}
    assert len({turn["session_id"] for turn in inner}) == 3


def test_nodes_of_a_graph_are_agents_of_a_workflow(engine: Engine) -> None:
    pytest.importorskip("langgraph")
    turns = engine.turns_of("langgraph_workflow.py", num_turns=8)
    (workflow,) = {turn["workflow_id"] for turn in turns}
    for turn in turns:
        assert turn["session_id"] == f"{workflow}/{turn['agent_id']}"
        assert turn["parent_session_id"] is None
    agents = [turn["agent_id"] for turn in turns]
    assert agents[0] == agents[4] == "plan"
    assert agents[3] == agents[7] == "edit"
    assert set(agents[1:3]) == set(agents[5:7]) == {"intro", "body"}


def test_chat_goes_on_under_its_name(engine: Engine) -> None:
    turns = engine.turns_of("anthropic_chat.py", num_turns=3)
    assert {turn["session_id"] for turn in turns} == {"chat-of-ada"}
    assert len({turn["session"] for turn in turns}) == 1
    ends = until(lambda: engine.events("turn_ended")[-3:])
    assert [end["kind"] for end in ends] == ["human"] * 3
