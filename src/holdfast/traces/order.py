"""Groups sessions into families and orders them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from holdfast.traces.record import Session

__all__ = ["families", "lap_after", "parents_first", "reordered", "rotation"]

_Item = TypeVar("_Item")


def families(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Group sessions with the sub-agents that follow them; holds one group at a time.

    A sub-agent whose parent is not in the current group starts a new group.
    """
    family: list[Session] = []
    members: set[str] = set()
    for session in sessions:
        if family and session.parent_id not in members:
            yield family
            family, members = [], set()
        family.append(session)
        members.add(session.session_id)
    if family:
        yield family


def parents_first(
    items: Sequence[_Item],
    name_of: Callable[[_Item], str],
    parent_of: Callable[[_Item], str | None],
) -> list[_Item]:
    """Order items so that each is followed by its children. Pure.

    Items without a known parent keep their order, and so do children of one parent. Items in a
    cycle come last.
    """
    names = {name_of(item) for item in items}
    children: dict[str, list[_Item]] = {}
    roots: list[_Item] = []
    for item in items:
        parent = parent_of(item)
        is_child = parent is not None and parent in names and parent != name_of(item)
        (children.setdefault(parent or "", []) if is_child else roots).append(item)
    order: list[_Item] = []
    waiting = roots[::-1]
    while waiting:
        item = waiting.pop()
        order.append(item)
        waiting += children.pop(name_of(item), [])[::-1]
    return order + [item for group in children.values() for item in group]


def reordered(sessions: Iterable[Session], rng: random.Random | None) -> Iterator[Session]:
    """Yield the sessions in random order; holds all of them, unless `rng` is None.

    Sub-agents stay after their main agent. A shuffle of recorded arrivals would change load and
    sharing, so `rng` only chooses the first one, as in `rotation`.
    """
    if rng is None:
        yield from sessions
        return
    ordered = parents_first(list(sessions), lambda one: one.session_id, lambda one: one.parent_id)
    groups = list(families(ordered))
    starts_s = [group[0].start_s for group in groups]
    arrivals_s = [start_s for start_s in starts_s if start_s is not None]
    if len(arrivals_s) < len(groups):
        rng.shuffle(groups)
        yield from (session for group in groups for session in group)
        return
    order = sorted(range(len(groups)), key=arrivals_s.__getitem__)
    arrivals_s.sort()
    for position, shift_s in rotation(arrivals_s, rng.randrange(len(groups)) if groups else 0):
        for session in groups[order[position]]:
            start_s = session.start_s
            yield session if start_s is None else replace(session, start_s=start_s + shift_s)


def rotation(arrivals: Sequence[float], begin: int) -> Iterator[tuple[int, float]]:
    """Yield positions from `begin` on, then those before it, with time shifts. Pure.

    The shift is 0, or the length of the recording for the positions before `begin`.

    Args:
        arrivals: Arrival times, ascending, in any unit.
        begin: The first position.
    """
    if not arrivals:
        return
    lap = lap_after(arrivals[0], arrivals[-1], len(arrivals))
    yield from ((position, 0.0) for position in range(begin, len(arrivals)))
    yield from ((position, lap) for position in range(begin))


def lap_after(first: float, last: float, num_arrivals: int) -> float:
    """Length of a recording: the span of its arrivals plus one mean interval. Pure."""
    span = last - first
    return span + span / max(1, num_arrivals - 1)
