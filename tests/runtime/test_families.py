"""Which agents wait for which sub-agents, and for how many of them."""

from __future__ import annotations

import pytest
from tests.runtime.family_server import READ, FamilyServer, tasks

from holdfast.core.session import Session, SessionState
from holdfast.tool_calls.turn_end import TurnEnd

FIVE = tuple(f"Look into part {number} of the code." for number in range(5))


@pytest.fixture
def server() -> FamilyServer:
    return FamilyServer()


def _waits(session: Session) -> tuple[int, int] | None:
    """For how many of how many sub-agents a session waits; None for none."""
    join = session.join
    return None if join is None else (join.num_awaited, join.num_sub_agents)


def _fan_out(server: FamilyServer, num: int = 5, parent: str = "root") -> list[Session]:
    """Begin so many sub-agents of an agent that has called them."""
    return [server.arrive(f"{parent}/{n}", FIVE[n], parent=parent) for n in range(num)]


def test_agent_waits_for_three_of_five(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE))
    assert _waits(root) == (5, 5)
    _fan_out(server)
    server.answer("root/1")
    server.answer("root/4")
    assert _waits(root) == (3, 5)


def test_wait_ends_with_the_agents_next_turn(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    for child in _fan_out(server, 2):
        server.answer(f"root/{child.number - 1}")
    assert root.join is not None and root.join.is_over
    assert server.arrive("root") is root
    assert root.join is None


def test_more_sub_agents_than_were_read_count(server: FamilyServer) -> None:
    """The end of a long answer shows the last of its calls only."""
    root = server.say("root", end=tasks(FIVE[4]))
    _fan_out(server)
    assert _waits(root) == (5, 5)


def test_sub_agent_at_a_tool_has_not_ended(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0]))
    server.arrive("root/0", parent="root")
    server.answer("root/0", READ)
    assert _waits(root) == (1, 1)
    server.arrive("root/0", parent="root")
    assert server.answer("root/0").state is SessionState.CLOSED
    assert _waits(root) == (0, 1)


def test_sub_agent_that_asks_a_human_has_not_ended(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0]))
    server.arrive("root/0", parent="root")
    server.answer("root/0", TurnEnd("human", tasks("x", name="AskUserQuestion").calls))
    assert _waits(root) == (1, 1)


def test_sub_agent_that_is_closed_has_ended(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    one, two = _fan_out(server, 2)
    server.answer("root/0", READ)
    server.runtime.session_closed(one)
    assert _waits(root) == (1, 2)
    server.answer("root/1", READ)
    server.runtime.session_closed(two)
    assert root.join is not None and root.join.is_over


def test_sub_agent_that_is_forgotten_has_ended(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    one, _ = _fan_out(server, 2)
    server.answer("root/0", READ)
    server.runtime._forget(one)
    assert _waits(root) == (1, 2)


def test_nested_agents_wait_for_their_own(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0]))
    server.arrive("a", parent="root")
    middle = server.answer("a", tasks(*FIVE[1:3]))
    for name in ("a1", "a2"):
        server.arrive(name, parent="a")
    assert (_waits(root), _waits(middle)) == ((1, 1), (2, 2))
    server.answer("a1")
    server.answer("a2")
    assert (_waits(root), _waits(middle)) == ((1, 1), (0, 2))
    assert server.arrive("a", parent="root") is middle
    server.answer("a")
    assert _waits(root) == (0, 1)


def test_sub_agents_in_the_background_are_no_join(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0]))
    server.arrive("root/0", parent="root")
    server.arrive("root")
    server.answer("root", READ)
    assert _waits(root) is None
    families = server.runtime._turn_ends.families
    assert families.num_running(root) == 1
    server.answer("root/0")
    assert families.num_running(root) == 0 and _waits(root) is None


def test_tool_that_waits_takes_agents_of_the_background(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0], name="spawn_agent"))
    server.arrive("one", parent="root")
    server.arrive("root")
    server.answer("root", tasks(FIVE[1], name="spawn_agent"))
    server.arrive("two", parent="root")
    server.arrive("root")
    server.answer("root", tasks("0d5c1a1e-5a3b-4a3f", name="wait_agent"))
    assert _waits(root) == (2, 2)
    server.answer("two")
    assert _waits(root) == (1, 2)


def test_tool_that_returns_at_once_is_no_join_later(server: FamilyServer) -> None:
    """It starts sub-agents and does not wait for them, as their agent's returns show."""
    for number in range(4):
        root = server.say("root", end=tasks(FIVE[0], name="spawn_agent"))
        assert root.join is not None
        is_trusted = root.join.is_trusted
        server.arrive(f"child {number}", parent="root")
        server.arrive("root")
        server.answer("root", READ)
    assert not is_trusted
    assert server.runtime.join_wait_s(root) is None


def test_agent_that_returns_early_leaves_the_background(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    _fan_out(server, 2)
    server.answer("root/0")
    server.arrive("root")
    assert root.join is None
    server.answer("root/1")
    server.answer("root")
    assert root.join is None and root.state is SessionState.HUMAN_AWAY


def test_ended_sub_agent_that_is_asked_again_runs_again(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    _fan_out(server, 2)
    server.answer("root/0")
    assert _waits(root) == (1, 2)
    server.arrive("root/0", parent="root")
    assert _waits(root) == (2, 2)
    server.answer("root/0")
    assert _waits(root) == (1, 2)


def test_call_read_late_counts_what_began_before(server: FamilyServer) -> None:
    root = server.say("root", end=None)
    _fan_out(server, 2)
    server.answer("root/0")
    server.runtime.turn_end_known(root, root.num_turns, tasks(*FIVE[:3]))
    assert _waits(root) == (2, 3)


def test_orphan_has_no_parent_until_that_shows(server: FamilyServer) -> None:
    child = server.arrive("child", parent="root")
    families = server.runtime._turn_ends.families
    assert families.parent_of(child) is None and child.has_parent
    server.answer("child", READ)
    root = server.say("root", end=tasks(FIVE[0]))
    server.arrive("child", parent="root")
    assert families.parent_of(child) is root
    assert _waits(root) == (1, 1)
    assert root.join is not None and not root.join.num_running


@pytest.mark.parametrize("claims", [("a", "b"), ("a",)])
def test_ids_that_lie_make_no_circle(server: FamilyServer, claims: tuple[str, ...]) -> None:
    """Sessions that name each other, or themselves, as parents."""
    names = dict(zip(claims, [*claims[1:], claims[0]], strict=True))
    for _ in range(3):
        for name, parent in names.items():
            server.arrive(name, parent=parent)
            server.answer(name, tasks(FIVE[0]))
    families = server.runtime._turn_ends.families
    for session in server.runtime.sessions:
        parent_session = families.parent_of(session)
        assert parent_session is not session
        assert parent_session is None or families.parent_of(parent_session) is not session


def test_parents_of_other_tenants_are_not_found(server: FamilyServer) -> None:
    root = server.say("alice:root", end=tasks(FIVE[0]))
    child = server.arrive("bob:child", FIVE[0], parent="root")
    server.runtime.prompt_read(child, FIVE[0])
    assert server.runtime._turn_ends.families.parent_of(child) is None
    assert root.join is not None and not root.join.num_running


def test_sub_agents_without_ids_are_known_by_their_tasks(server: FamilyServer) -> None:
    server.arrive("root", has_id=False)
    root = server.answer("root", tasks(*FIVE[:2]))
    other = server.arrive("other", "Another request of the user.", has_id=False)
    for number in range(2):
        child = server.arrive(f"child {number}", FIVE[number], has_id=False)
        assert server.runtime.wants_prompt(child)
        server.runtime.prompt_read(child, f"<user>{FIVE[number]}")
    assert _waits(root) == (2, 2)
    assert server.answer("child 0").state is SessionState.CLOSED
    assert _waits(root) == (1, 2)
    assert server.answer("other") is other and not other.has_parent


def test_sub_agents_under_the_id_of_their_root_are_its(server: FamilyServer) -> None:
    server.arrive("root", "A long request. " * 9)
    server.answer("root", READ)
    server.arrive("root")
    root = server.answer("root", tasks(FIVE[0]))
    server._said["child"] = "Another head. " * 3
    identity = "root"
    server._said[identity], kept = server._said["child"], server._said[identity]
    child = server.arrive(identity, FIVE[0])
    assert child is not root and _waits(root) == (1, 1)
    assert root.join is not None and root.join.num_running == 1
    server.answer(identity)
    assert root.join.is_over
    server._said[identity] = kept
    assert server.arrive(identity) is root


def test_agent_left_for_its_sub_agents_has_not_moved_on(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(*FIVE[:2]))
    one, _ = _fan_out(server, 2)
    server.answer("root/0", READ)
    server.arrive("root/2", FIVE[2], parent="root")
    assert not root.has_moved_on and not one.has_moved_on


def test_streams_under_one_id_replace_nothing_once_known(server: FamilyServer) -> None:
    """They begin before the call of their root has been read."""
    root = server.say("root", "A long request. " * 9, end=None)
    server._said["root"], kept = "Another head. " * 3, server._said["root"]
    child = server.arrive("root", FIVE[0])
    assert child is not root and root.has_moved_on
    server.runtime.turn_end_known(root, root.num_turns, tasks(FIVE[0]))
    assert not root.has_moved_on and _waits(root) == (1, 1)
    server.answer("root")
    assert root.join is not None and root.join.is_over
    server._said["root"] = kept
    assert server.arrive("root") is root


def test_reservation_is_given_back_when_the_last_has_ended(server: FamilyServer) -> None:
    root = server.say("root", end=tasks(FIVE[0]))
    _fan_out(server, 1)
    server.runtime._blocks.release(root)
    server.answer("root/0")
    assert root.has_reservation is (root in server.runtime.idle)


def test_dropped_content_ends_all_families(server: FamilyServer) -> None:
    server.say("root", end=tasks(FIVE[0]))
    _fan_out(server, 1)
    families = server.runtime._turn_ends.families
    server.runtime.content_dropped()
    assert not families._parents and not families._children
