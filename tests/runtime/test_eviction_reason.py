"""Why a node was evicted, by the sessions that use it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.policies.host import HUMAN, Cache, hashes_of

from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.runtime.eviction_reason import sessions_using, victim_of


def sessions(*states: SessionState) -> set[Session]:
    table = SessionTable(PrefixTree(), 10)
    found = {table.add(None) for _ in states}
    for session, state in zip(found, states, strict=True):
        session.state = state
    return found


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ((), "closed"),
        ((SessionState.AT_TOOL,), "tool"),
        ((SessionState.RUNNING,), "tool"),
        ((SessionState.WAITING,), "tool"),
        ((SessionState.HUMAN_AWAY,), "human"),
        ((SessionState.SUPERSEDED,), "superseded"),
        ((SessionState.CLOSED,), "closed"),
        ((SessionState.AT_TOOL, SessionState.HUMAN_AWAY), "prefix"),
        ((SessionState.CLOSED, SessionState.CLOSED), "prefix"),
    ],
)
def test_reason_names_what_the_users_do(states: tuple[SessionState, ...], reason: str) -> None:
    node: Node[Any] = Node(Node(None, 0, []), 0, [b"a"])
    node.tails = users = sessions(*states)
    only = next(iter(users)) if len(users) == 1 else None
    assert victim_of(node) == (reason, only, True)


def test_node_without_an_owner_is_superseded() -> None:
    assert victim_of(None) == ("superseded", None, False)


def test_users_are_all_sessions_below_a_node() -> None:
    cache = Cache("marconi", 40)
    tool = cache.session("a", hashes_of("ssa"))
    human = cache.session("b", hashes_of("ssb"), HUMAN)
    shared, own = (cache.runtime.tree.locate(prefix) for prefix in (b"ss", b"ssb"))
    assert shared is not None and own is not None
    assert sessions_using(shared) == {tool, human}
    assert sessions_using(own) == {human}
    assert victim_of(shared) == ("prefix", None, True)
    assert victim_of(own) == ("human", human, True)
