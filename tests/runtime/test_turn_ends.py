"""Which sessions end with their last answer: those whose answer another agent reads."""

from __future__ import annotations

import random

import pytest
from tests.runtime.test_lineage import HEAD, HUMAN, Server, calls, loop, render

from holdfast.core.session import Session, SessionState
from holdfast.tool_calls.turn_end import TurnEnd


@pytest.fixture
def server() -> Server:
    return Server()


def _is(session: Session, state: str) -> bool:
    return session.state is SessionState[state]


def _prompt(text: str) -> str:
    return render([("system", HEAD), ("user", text)])


def test_sub_agent_that_has_answered_is_closed(server: Server) -> None:
    session = server.turn(_prompt("task"), "found", calls("Read"), parent=True)
    assert _is(session, "AT_TOOL") and session.has_reservation
    assert server.turn(_prompt("task") + "found, and more", "done", HUMAN) is session
    assert _is(session, "CLOSED") and not session.has_reservation


def test_agent_without_a_parent_waits_for_its_human(server: Server) -> None:
    session = server.turn(_prompt("request"), "done", HUMAN)
    assert _is(session, "HUMAN_AWAY") and session.has_reservation


def test_sub_agent_that_asks_a_human_is_not_closed(server: Server) -> None:
    session = server.turn(_prompt("task"), "which?", calls("AskUserQuestion"), parent=True)
    asked = TurnEnd("human", calls("AskUserQuestion").calls)
    session = server.turn(_prompt("another task"), "which?", asked, parent=True)
    assert _is(session, "HUMAN_AWAY")


def test_finding_that_comes_late_closes_a_sub_agent(server: Server) -> None:
    session = server.turn(_prompt("task"), "done", None, parent=True)
    assert session.has_reservation
    server.runtime.turn_end_known(session, session.num_turns, HUMAN)
    assert _is(session, "CLOSED") and not session.has_reservation


def test_sub_agent_that_is_asked_again_stays_afterwards(server: Server) -> None:
    session = server.turn(_prompt("task"), "done", HUMAN, parent=True)
    assert _is(session, "CLOSED")
    assert server.turn(_prompt("task") + "done, and now", "again", HUMAN) is session
    assert _is(session, "HUMAN_AWAY") and session.has_reservation


def test_side_call_is_closed_once_its_agent_shows(server: Server) -> None:
    """Which stream is the agent's own is known when one of them calls a tool."""
    side = server.turn(
        render([("system", "Is this a new topic?"), ("user", "x")]), "yes", group="i"
    )
    assert _is(side, "HUMAN_AWAY")
    (main, *_) = loop(server, [("system", HEAD), ("user", "request")], "i")
    assert _is(side, "CLOSED")
    assert _is(main, "HUMAN_AWAY")


def test_chats_without_tools_under_one_id_stay_open(server: Server) -> None:
    first = server.turn(_prompt("one"), "answer", group="i")
    busy = server.begin(_prompt("another, longer one"), "i")
    server.end(busy, _prompt("another, longer one"), HUMAN)
    assert {first.state, busy.session.state} == {SessionState.HUMAN_AWAY}


@pytest.mark.parametrize("is_late", [False, True])
def test_side_calls_never_continued_get_no_reservation(server: Server, is_late: bool) -> None:
    """Without an id: messages for commits, now and then, between the turns of sessions."""
    held, mains = [], []
    rng = random.Random(1)
    for number in range(12):
        server.now_s += rng.expovariate(0.01)
        prompt = render([("system", HEAD), ("user", f"request {number}")])
        mains.append(server.turn(prompt, "done", HUMAN))
        mains.append(server.turn(prompt + "done" + render([("user", "and")]), "done", HUMAN))
        diff = render([("system", "Write a message for this commit."), ("user", f"{number} files")])
        side = server.turn(diff, "Fix it", None if is_late else HUMAN)
        if is_late:
            server.runtime.turn_end_known(side, side.num_turns, HUMAN)
        held.append(side.has_reservation)
    assert held[0] and not any(held[6:])
    assert mains[-1] is mains[-2] and mains[-1].has_reservation
