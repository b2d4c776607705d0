"""What applications say about sessions, and when it applies."""

from __future__ import annotations

import math

import pytest
from tests.runtime.test_lineage import HEAD, HUMAN, Server, calls, render

from holdfast.core.agents import AgentKey
from holdfast.core.commands import (
    MAX_EXPECTED_S,
    CloseSession,
    CommandOutcome,
    DeclareWorkflow,
    EndWorkflow,
    ToolFinished,
    ToolStarted,
)
from holdfast.core.session import Session, SessionState
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph

PROMPT = render([("system", HEAD), ("user", "request")])


@pytest.fixture
def server() -> Server:
    return Server()


def _started(
    server: Server, tool: str = "", expected_s: float | None = None, *, tenant: str = ""
) -> CommandOutcome:
    return server.runtime.command(ToolStarted(tenant, "id", tool, expected_s))


def _finished(server: Server, tool: str = "") -> CommandOutcome:
    return server.runtime.command(ToolFinished("", "id", tool))


def _close(server: Server) -> CommandOutcome:
    return server.runtime.command(CloseSession("", "id"))


def _after(server: Server, seconds: float) -> None:
    server.now_s += seconds
    server.runtime.tick(server.now_s)


def _priority(server: Server, session: Session) -> float:
    return server.runtime.policies.eviction.session_priority(session)


@pytest.mark.parametrize(
    "command",
    [ToolStarted("", "id", "Bash"), ToolFinished("", "id"), CloseSession("", "id")],
)
def test_an_unknown_session_changes_nothing(server: Server, command: ToolStarted) -> None:
    server.turn(PROMPT, "answer", None, "another")
    assert server.runtime.command(command).outcome == "unknown_session"


def test_a_tool_that_runs_explains_the_pause(server: Server) -> None:
    session = server.turn(PROMPT, "answer", None, "id")
    assert session.gap.kind == "unknown"
    assert _started(server, "Bash", 60.0) == CommandOutcome("accepted")
    assert (session.gap.kind, session.gap.tool) == ("shell", "Bash")
    assert session.calls_tools and session.expected_gap_s == 60.0


def test_the_expected_pause_counts_from_the_turns_end(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    _after(server, 5.0)
    _started(server, "Bash", 60.0)
    assert session.expected_gap_s == 65.0


def test_what_was_read_of_the_same_tool_stays(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    before = session.gap
    _started(server, "Bash")
    assert session.gap is before


def test_a_tool_that_runs_outweighs_an_answer_that_was_read(server: Server) -> None:
    session = server.turn(PROMPT, "answer", None, "id")
    _started(server, "Bash")
    server.runtime.turn_end_known(session, session.num_turns, HUMAN)
    assert session.state is SessionState.AT_TOOL and session.gap.tool == "Bash"


def test_a_tool_that_asks_waits_for_a_human(server: Server) -> None:
    session = server.turn(PROMPT, "answer", None, "id")
    _started(server, "AskUserQuestion")
    assert session.state is SessionState.HUMAN_AWAY


def test_the_slowest_of_several_tools_counts(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    for tool, expected_s in (("Bash", 5.0), ("Task", 60.0), ("Read", None)):
        assert _started(server, tool, expected_s).is_applied
    assert session.expected_gap_s == 60.0
    _finished(server, "Task")
    assert session.expected_gap_s == 5.0 and session.result_at_s is None
    _finished(server, "Bash")
    assert session.expected_gap_s is None and session.result_at_s is None
    _finished(server, "Read")
    assert session.result_at_s == server.now_s


def test_a_hint_of_the_request_stays_without_an_expected_time(server: Server) -> None:
    turn = server.begin(PROMPT, "id")
    server.runtime.turn_ended(turn, [], calls("Bash"), expected_gap_s=30.0)
    _started(server, "Bash")
    assert turn.session.expected_gap_s == 30.0


def test_a_finished_tool_makes_the_return_imminent(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    _started(server, "Bash", 3600.0)
    _after(server, 100.0)
    other = server.turn(render([("system", "Another."), ("user", "x")]), "y", calls("Read"))
    assert _priority(server, session) < _priority(server, other)
    _finished(server, "Bash")
    _after(server, 1.0)
    assert _priority(server, session) > _priority(server, other)
    assert list(server.runtime.results_known()) == [session]


def test_an_imminent_session_is_prefetched_unless_resident(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    prefetch = server.runtime.policies.prefetch
    assert session.tail not in list(prefetch.candidates())
    _finished(server)  # this server's blocks are in no cache
    assert next(iter(prefetch.candidates())) is session.tail
    _started(server, "Bash")
    assert session.tail not in list(prefetch.candidates()) and session.result_at_s is None


def test_an_imminent_session_is_idle_since_its_result(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    admission = server.runtime.policies.admission
    _after(server, 500.0)
    assert admission.idle_s(session) == 500.0
    _finished(server)
    _after(server, 2.0)
    assert admission.idle_s(session) == 2.0


def test_a_result_restores_a_released_reservation(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    server.runtime._blocks.release(session)
    assert not session.has_reservation
    _finished(server)
    assert session.has_reservation


def test_the_next_turn_ends_what_was_said(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    _started(server, "Bash", 3600.0)
    _finished(server)
    _after(server, 3.0)
    assert server.turn(PROMPT + "answer, and", "done", None, "id") is session
    assert session.result_at_s is None and session.expected_gap_s is None
    assert not list(server.runtime.results_known())
    assert session.gap.kind == "unknown"


def test_the_time_from_result_to_turn_is_learned(server: Server) -> None:
    prompt = PROMPT
    for _ in range(20):
        session = server.turn(prompt, "answer", calls("Bash"), "id")
        prompt += "answer, and"
        _finished(server)
        _after(server, 3.0)  # a turn of this server arrives a second later
    server.turn(prompt, "answer", calls("Bash"), "id")
    _finished(server)
    assert session.result_lag_s == pytest.approx(4.0)
    assert _priority(server, session) == pytest.approx(1 / 4.0)


def test_a_tool_may_start_before_its_turn_has_ended(server: Server) -> None:
    turn = server.begin(PROMPT, "id")
    assert _started(server, "Bash", 60.0).reason == "applies when the session's turn ends"
    server.end(turn, PROMPT + "answer", None)  # a second later
    assert turn.session.gap.tool == "Bash" and turn.session.expected_gap_s == 59.0


def test_a_tool_may_finish_before_its_turn_has_ended(server: Server) -> None:
    turn = server.begin(PROMPT, "id")
    _started(server, "Bash")
    _finished(server, "Bash")
    server.end(turn, PROMPT + "answer", None)
    assert turn.session.result_at_s == server.now_s


def test_a_result_after_the_next_prompt_changes_nothing(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    _started(server, "Bash")
    turn = server.begin(PROMPT + "answer, and", "id")
    assert _finished(server, "Bash").is_applied
    server.end(turn, PROMPT + "answer, and more", calls("Read"))
    assert session.result_at_s is None and session.gap.tool == "Read"


def test_a_session_is_closed_on_command(server: Server) -> None:
    session = server.turn(PROMPT, "answer", calls("Bash"), "id")
    _finished(server)
    assert _close(server) == CommandOutcome("accepted")
    assert session.state is SessionState.CLOSED and not session.has_reservation
    assert not list(server.runtime.results_known())
    assert _started(server, "Bash").outcome == _finished(server).outcome == "rejected"
    assert _close(server) == CommandOutcome("accepted")  # again is the same


def test_a_busy_session_is_closed_when_its_turn_ends(server: Server) -> None:
    turn = server.begin(PROMPT, "id")
    assert _close(server).reason == "applies when the session's turn ends"
    assert turn.session.state.is_busy
    server.end(turn, PROMPT + "answer", calls("Bash"))
    assert turn.session.state is SessionState.CLOSED


def test_all_streams_of_an_id_are_closed(server: Server) -> None:
    first = server.turn(PROMPT, "answer", calls("Bash"), "id")
    busy = server.begin(render([("system", "Title?"), ("user", "x")]), "id")
    assert busy.session is not first
    _close(server)
    server.end(busy, "", HUMAN)
    assert {first.state, busy.session.state} == {SessionState.CLOSED}


def test_tools_belong_to_the_agents_own_stream(server: Server) -> None:
    main = server.turn(PROMPT, "answer", calls("Bash"), "id")
    busy = server.begin(PROMPT + "answer, and", "id")
    title = server.turn(render([("system", "Title?"), ("user", "x")]), "y", HUMAN, "id")
    server.end(busy, PROMPT + "answer, and so on", None)
    assert title is not main
    _started(server, "Read")
    assert main.gap.tool == "Read" and title.gap.kind == "human"


def test_a_tenant_cannot_reach_anothers_session(server: Server) -> None:
    server.turn(PROMPT, "answer", None, "id")
    assert _started(server, "Bash", tenant="other").outcome == "unknown_session"


@pytest.mark.parametrize(
    ("expected_s", "kept_s"),
    [(1e12, MAX_EXPECTED_S), (math.inf, MAX_EXPECTED_S), (math.nan, None), (-1.0, None)],
)
def test_wild_durations_are_clipped(
    server: Server, expected_s: float, kept_s: float | None
) -> None:
    session = server.turn(PROMPT, "answer", None, "id")
    outcome = _started(server, "Bash", expected_s)
    assert outcome.outcome == "clipped" and "expected_s" in outcome.reason
    assert session.expected_gap_s == kept_s


def test_the_tools_of_a_session_are_bounded(server: Server) -> None:
    server.turn(PROMPT, "answer", None, "id")
    outcomes = [_started(server, f"tool{number}").outcome for number in range(70)]
    assert outcomes == ["accepted"] * 64 + ["rejected"] * 6


def test_a_tools_name_may_be_anything(server: Server) -> None:
    session = server.turn(PROMPT, "answer", None, "id")
    assert _started(server, "\x00 rm -rf" * 99).is_applied
    assert session.gap.kind == "other" and session.gap.tool == ""


def test_dropped_content_ends_what_was_said(server: Server) -> None:
    server.turn(PROMPT, "answer", calls("Bash"), "id")
    _finished(server)
    server.runtime.content_dropped()
    assert not list(server.runtime.results_known())
    assert _finished(server).outcome == "unknown_session"


def test_forgotten_sessions_leave_nothing(server: Server) -> None:
    server.runtime.sessions.max_sessions = 2
    for number in range(9):
        name = f"id{number}"
        server.turn(render([("user", f"request {number}")]), "answer", calls("Bash"), name)
        server.runtime.command(ToolStarted("", name, "Bash"))
        server.runtime.command(ToolFinished("", name, "Bash"))
    assert len(server.runtime._commands._told) <= 2
    assert len(list(server.runtime.results_known())) <= 2


def test_workflows_are_declared_and_ended(server: Server) -> None:
    command = server.runtime.command
    graph = WorkflowGraph((AgentStep("a"), AgentStep("b", ("a",))))
    assert command(DeclareWorkflow("", "w", graph)).is_applied
    assert server.runtime.workflows.steps_to(AgentKey("", "b")) == 2
    assert command(EndWorkflow("other", "w")).outcome == "unknown_workflow"
    assert command(EndWorkflow("", "w")).is_applied
    assert command(EndWorkflow("", "w")).outcome == "unknown_workflow"
