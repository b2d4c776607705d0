"""Control requests to the real scheduler: commands apply, and the state is what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vllm.conftest import Rig, RigMaker, keys_of

from holdfast.core.commands import (
    CloseSession,
    Command,
    DeclareWorkflow,
    EndWorkflow,
    ToolFinished,
    ToolStarted,
)
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph
from holdfast.vllm.control.messages import CommandReport, StateQuery, StateReport, encode
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

pytestmark = pytest.mark.engine


def _command(rig: Rig, command: Command) -> CommandReport:
    return msgspec.msgpack.decode(rig.scheduler(encode(command)), type=CommandReport)


def _state(rig: Rig, **query: Any) -> StateReport:
    return msgspec.msgpack.decode(rig.scheduler(encode(StateQuery(**query))), type=StateReport)


def test_vllm_finds_the_scheduler_as_a_utility(rig: Rig) -> None:
    """The engine core calls whatever attribute of itself a utility call names."""
    from vllm.v1.engine import UtilityResult
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    handle = EngineCoreProc._handle_client_request
    sent: list[Any] = []
    core = EngineCoreProc.__new__(EngineCoreProc)
    core.scheduler = rig.scheduler
    core.output_queue = type("Queue", (), {"put_nowait": staticmethod(sent.append)})
    core._reject_utility_in_shutdown = lambda *_: False
    from vllm.v1.engine import EngineCoreRequestType

    handle(core, EngineCoreRequestType.UTILITY, (0, 1, "scheduler", (encode(StateQuery()),)))
    ((_, outputs),) = sent
    result = outputs.utility_output.result
    assert outputs.utility_output.failure_message is None
    frames = MsgpackEncoder().encode(result)
    received = MsgpackDecoder(UtilityResult).decode(frames)
    assert msgspec.msgpack.decode(received.result, type=StateReport).engine.is_active


def test_a_command_applies_while_the_engine_is_idle(rig: Rig) -> None:
    rig.turn("r1", "abcd", session_id="s")
    (session,) = rig.sessions
    assert _command(rig, ToolStarted("", "s", "Bash", 30.0)) == CommandReport(0, "accepted", "")
    assert session.gap.tool == "Bash"
    _command(rig, ToolFinished("", "s"))
    assert session.result_at_s == rig.now_s
    assert _command(rig, CloseSession("", "s")).outcome == "accepted"
    assert not session.state.is_paused


def test_a_command_applies_to_a_running_turn_at_its_end(rig: Rig) -> None:
    rig.send("r1", "abcd", session_id="s")
    rig.step()
    assert "when the session's turn ends" in _command(rig, ToolStarted("", "s", "Bash")).reason
    rig.finish()
    (session,) = rig.sessions
    assert session.gap.tool == "Bash"


def test_workflows_are_declared_and_ended(rig: Rig) -> None:
    graph = WorkflowGraph((AgentStep("a"), AgentStep("b", ("a",))))
    assert _command(rig, DeclareWorkflow("t", "w", graph)).outcome == "accepted"
    xargs = {"holdfast_workflow_id": "w", "holdfast_agent_id": "a"}
    rig.send("r1", "abcd", xargs=xargs, tenant="t")
    (workflow,) = _state(rig).workflows
    assert (workflow.workflow_id, workflow.num_agents, workflow.running) == ("w", 2, ["a"])
    assert workflow.tenant not in ("", "t")
    assert _state(rig, tenant="t").workflows == [workflow]
    assert _state(rig, tenant="u").workflows == []
    rig.finish()
    assert _command(rig, EndWorkflow("u", "w")).outcome == "unknown_workflow"
    assert _command(rig, EndWorkflow("t", "w")).outcome == "accepted"
    assert _state(rig).workflows == []


def test_the_state_shows_sessions_and_what_they_wait_for(rig: Rig) -> None:
    xargs = {"holdfast_agent_id": "writer", "holdfast_turn_end": "tool:Bash"}
    rig.turn("r1", "abcd", session_id="s", xargs=xargs, tenant="salt")
    _command(rig, ToolStarted("salt", "s", "Bash", 30.0))
    rig.now_s += 10.0
    report = _state(rig)
    (session,) = report.sessions
    assert (session.session_id, session.state, session.agent_id) == ("s", "at_tool", "writer")
    assert session.tenant not in ("", "salt") and session.num_turns == 1
    assert session.resident_blocks == session.context_blocks == 4 and session.has_reservation
    wait = session.waits_for
    assert wait is not None and (wait.kind, wait.tool) == ("shell", "Bash")
    assert wait.idle_s > 10.0 and wait.expected_s == pytest.approx(20.0)
    assert report.engine.sessions == {"at_tool": 1} and report.next_after is None
    assert report.engine.reserved_blocks == 4 and report.engine.free_blocks == rig.num_blocks


def test_the_state_shows_what_was_evicted(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    rig.turn("r1", "abcdefgh", session_id="s", xargs={"holdfast_final": True})
    rig.turn("r2", "ABCDEFGH", session_id="t")
    first, second = _state(rig).sessions
    assert (first.state, second.state) == ("closed", "at_tool") and first.waits_for is None
    for session, prompt in ((first, "abcdefgh"), (second, "ABCDEFGH")):
        assert session.resident_blocks == rig.num_cached(prompt)
    assert first.resident_blocks < first.context_blocks == second.resident_blocks == 8


def test_the_state_says_why_a_session_missed(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    rig.turn("r1", "abcdef", session_id="s")
    rig.turn("r2", "uvwxyzmnopq")
    rig.turn("r3", "abcdef", session_id="s")
    (report,) = _state(rig, session_id="s").sessions
    miss = report.last_miss
    assert miss is not None and miss.missed == {"evicted": 96, "below_block_size": 4}
    assert (miss.turn, miss.prompt_tokens, miss.cached_tokens) == (2, 100, 0)
    assert miss.lost_s > 0
    assert report.last_misses[0] == miss
    assert [(one.turn, one.missed) for one in report.last_misses[1:]] == [(1, {"never_seen": 100})]
    assert _state(rig, session_id="t").sessions == []


def test_the_state_keeps_the_last_four_misses(rig: Rig) -> None:
    for number in range(6):
        rig.turn(f"r{number}", "abcdef"[: number + 1], session_id="s")
    (report,) = _state(rig).sessions
    assert [miss.turn for miss in report.last_misses] == [6, 5, 4, 3]
    assert report.last_miss == report.last_misses[0]


def test_the_state_shows_what_is_stored(make_rig: RigMaker) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")
    rig = make_rig(12, host_blocks=64)
    rig.turn("r1", "abcdefgh", session_id="s")
    rig.turn("r2", "ABCDEFGH")
    (report,) = _state(rig, session_id="s").sessions
    tier = rig.scheduler.offload.tier
    assert report.stored_blocks == tier.num_stored(keys_of("abcdefgh"), 0) > 0
    assert report.resident_blocks < report.context_blocks


def test_the_state_comes_in_pages(rig: Rig) -> None:
    for number in range(7):
        rig.turn(f"r{number}", f"{number}bcd", session_id=f"s{number}", tenant=str(number % 2))
    pages, after = [], -1
    while True:
        report = _state(rig, after=after, limit=3)
        pages.append([session.session_id for session in report.sessions])
        if report.next_after is None:
            break
        after = report.next_after
    assert pages == [["s0", "s1", "s2"], ["s3", "s4", "s5"], ["s6"]]
    own = _state(rig, tenant="1")
    assert [session.session_id for session in own.sessions] == ["s1", "s3", "s5"]


def test_commands_are_counted_and_logged(make_rig: RigMaker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    rig = make_rig(20, settings={"decision_log": str(log)})
    rig.turn("r1", "abcd", session_id="s", tenant="a secret salt")
    _command(rig, ToolStarted("a secret salt", "s", "Bash", 1e9))
    _command(rig, CloseSession("", "s"))
    rig.scheduler._reports.close()
    assert rig.metrics["holdfast_commands/tool_started/clipped"] == 1
    assert rig.metrics["holdfast_commands/close_session/unknown_session"] == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    started, closed = [line for line in lines if line["event"] == "command"]
    assert (started["tool"], started["outcome"]) == ("Bash", "clipped")
    assert "cut to" in started["because"] and started["session_id"] == closed["session_id"] == "s"
    assert "secret" not in log.read_text()


def test_without_prefix_caching_no_command_applies(make_rig: RigMaker) -> None:
    rig = make_rig(20, has_prefix_cache=False)
    rig.turn("r1", "abcd", session_id="s")
    assert _command(rig, CloseSession("", "s")).outcome == "rejected"
    report = _state(rig)
    assert not report.engine.is_active and report.sessions == []


def test_a_failing_command_falls_back(make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(20, is_strict=False)
    rig.turn("r1", "abcd", session_id="s")

    def fail(_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(rig.scheduler._runtime, "command", fail)
    assert _command(rig, CloseSession("", "s")).outcome == "rejected"
    assert rig.metrics["holdfast_fallbacks/command"] == 1
    assert not _state(rig).engine.is_active
    rig.turn("r2", "abcd")


def test_garbage_is_refused_and_changes_nothing(rig: Rig) -> None:
    rig.turn("r1", "abcd", session_id="s")

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=40))
    def send(data: bytes) -> None:
        with pytest.raises(ValueError, match="not a request"):
            rig.scheduler(data)

    send()
    assert _state(rig).engine.is_active and "holdfast_fallbacks/command" not in rig.metrics
