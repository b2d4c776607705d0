"""Calls that a client makes beside a session leave that session as it was."""

from __future__ import annotations

import pytest
from tests.runtime.family_server import READ, FamilyServer
from tests.runtime.test_lineage import HUMAN

from holdfast.core.session import SessionState
from holdfast.tool_calls.turn_end import TurnEnd


@pytest.fixture
def server() -> FamilyServer:
    return FamilyServer()


@pytest.mark.parametrize("end", [HUMAN, None, TurnEnd("unknown")])
def test_side_call_is_closed_with_its_turn(server: FamilyServer, end: TurnEnd | None) -> None:
    server.arrive("title", "Write a title.", is_side_call=True, has_id=False)
    session = server.answer("title", end)
    assert session.state is SessionState.CLOSED and not session.has_reservation
    assert server.runtime.num_answered == {"side_call": 1}


def test_side_call_that_calls_a_tool_is_none(server: FamilyServer) -> None:
    server.arrive("title", is_side_call=True, has_id=False)
    session = server.answer("title", READ)
    assert session.state is SessionState.AT_TOOL and session.has_reservation
    assert server.arrive("title", has_id=False) is session


def test_side_call_is_retained_by_no_admission(server: FamilyServer) -> None:
    session = server.arrive("title", is_side_call=True, has_id=False)
    assert not server.runtime.retains(session)


def test_side_call_continues_no_session(server: FamilyServer) -> None:
    server.arrive("main", has_id=False)
    main = server.answer("main")
    server._said["title"] = server._said["main"]
    assert server.arrive("title", "Title?", is_side_call=True, has_id=False) is not main
    server.answer("title")
    assert server.arrive("main", has_id=False) is main


def test_side_call_leaves_no_mark_on_a_fork(server: FamilyServer) -> None:
    server.arrive("main", has_id=False)
    main = server.answer("main", text="A long answer. " * 9)
    server._said["title"] = server._said["main"][:-40] + "title?"
    server.arrive("title", is_side_call=True, has_id=False)
    assert not main.has_moved_on


def test_title_under_an_id_leaves_no_mark_once_known(server: FamilyServer) -> None:
    """Without a flag it is known by its answer."""
    server.arrive("main", "A long request. " * 9)
    main = server.answer("main", READ)
    server.arrive("main")
    server.answer("main")
    kept = server._said.pop("main")
    server._said["main"] = "Title? "
    title = server.arrive("main", "x")
    assert title is not main and main.has_moved_on
    server.answer("main")
    assert title.state is SessionState.CLOSED and not main.has_moved_on
    share = server.runtime.return_share
    server._said["main"] = kept
    assert server.arrive("main") is main
    assert server.runtime.return_share == share


def test_flag_that_lies_costs_no_more_than_a_new_session(server: FamilyServer) -> None:
    server.arrive("title", is_side_call=True, has_id=False)
    flagged = server.answer("title")
    session = server.arrive("title", has_id=False)
    assert session is not flagged
    assert server.answer("title").state is SessionState.HUMAN_AWAY and session.has_reservation
