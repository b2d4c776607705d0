"""Whatever clients claim, families stay consistent, bounded and forgettable."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.family_server import READ, FamilyServer, tasks
from tests.runtime.test_lineage import HUMAN

from holdfast.core.session import SessionState
from holdfast.runtime.families import Families
from holdfast.tool_calls.turn_end import TurnEnd

ENDS = {
    "human": HUMAN,
    "read": READ,
    "task": tasks("Look into the first part."),
    "three": tasks("Look into one.......", "Look into two.......", "Look into three....."),
    "wait": tasks("0d5c1a1e-5a3b-4a3f", name="wait_agent"),
    "unknown": TurnEnd("unknown"),
    "unread": None,
}
NAMES = ("a", "b", "c", "d", "x:a", "x:b")
PARENTS = (None, "a", "b", "c", "d", "someone else")

step = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from(NAMES), st.sampled_from(PARENTS)),
    st.tuples(st.just("answer"), st.sampled_from(NAMES), st.sampled_from(list(ENDS))),
    st.tuples(st.just("close"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("forget"), st.sampled_from(NAMES), st.none()),
)


def _families(server: FamilyServer) -> Families:
    return server.runtime._turn_ends.families


def _take(server: FamilyServer, action: str, name: str, detail: str | None) -> None:
    is_open = name in server._open
    if action == "arrive" and not is_open:
        server.arrive(name, parent=detail)
    elif action == "answer" and is_open:
        server.answer(name, ENDS[detail or "human"])
    elif action in ("close", "forget") and not is_open:
        tenant, _, session_id = name.rpartition(":")
        for session in list(server.runtime.sessions.of_group(f"{tenant}\x00{session_id}")):
            if action == "forget" and not session.state.is_busy:
                server.runtime._forget(session)
            elif session.state.is_paused:
                server.runtime.session_closed(session)


def _check(server: FamilyServer) -> None:
    families = _families(server)
    known = set(server.runtime.sessions)
    assert families._parents.keys() <= known
    assert families._children.keys() <= known
    for child, parent in families._parents.items():
        children = families._children[parent]
        assert (child in children.running) != (child in children.ended)
        assert child.tenant == parent.tenant
        seen = {child}
        while parent is not None:
            assert parent not in seen, "a circle of parents"
            seen.add(parent)
            parent = families.parent_of(parent)  # type: ignore[assignment]
    for session in known:
        join = session.join
        assert join is None or session.state is SessionState.AT_TOOL
        if join is not None:
            assert 0 <= join.num_running <= join.num_awaited <= join.num_sub_agents
            wait_s = server.runtime.join_wait_s(session)
            assert wait_s is None or wait_s >= 0.0


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(step, max_size=40))
def test_books_stay_consistent_and_are_emptied(
    steps: list[tuple[str, str, str | None]],
) -> None:
    server = FamilyServer()
    for action, name, detail in steps:
        _take(server, action, name, detail)
        _check(server)
    for name in list(server._open):
        server.answer(name)
    for session in list(server.runtime.sessions):
        server.runtime._forget(session)
    families = _families(server)
    assert not families._parents and not families._children
    assert not server.runtime._turn_ends.tasks.has_any("")


def test_thousands_of_sub_agents_are_bounded() -> None:
    server = FamilyServer()
    server.runtime.sessions.max_sessions = 3000
    root = server.say("root", end=tasks("Look into everything there is."))
    for number in range(1100):
        server.arrive(f"child {number}", parent="root")
        server.answer(f"child {number}", READ)
    children = _families(server)._children[root]
    assert len(children.running) + len(children.ended) <= 1024
    assert len(_families(server)._parents) <= 1024
    assert root.join is not None and root.join.num_sub_agents <= 1024
