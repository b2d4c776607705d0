"""In which order the sessions of a recording start, and which belong together."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from holdfast.traces.record import Session

__all__ = ["families", "lap_after", "reordered", "rotation"]


def families(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Group sessions with the sub-agents that follow them; holds one group at a time.

    A sub-agent whose parent is not in the group before it begins a group of its own.
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


def reordered(sessions: Iterable[Session], rng: random.Random | None) -> Iterator[Session]:
    """Yield the sessions in an order that `rng` chooses; holds all of them, unless it is None.

    Sub-agents stay behind their main agent. Recorded arrivals are not shuffled, which would change
    load and sharing: `rng` chooses the one to begin with, as `rotation` does.
    """
    if rng is None:
        yield from sessions
        return
    groups = list(families(sessions))
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
    """Yield positions from `begin` on, then those before it, and how much later each starts.

    What lies before the beginning follows at the end, one length of the recording later. Pure.

    Args:
        arrivals: When each starts, ascending, in any unit.
        begin: The position to begin with.
    """
    if not arrivals:
        return
    lap = lap_after(arrivals[0], arrivals[-1], len(arrivals))
    yield from ((position, 0.0) for position in range(begin, len(arrivals)))
    yield from ((position, lap) for position in range(begin))


def lap_after(first: float, last: float, num_arrivals: int) -> float:
    """The length of a recording: to its last arrival, and what is usual between two. Pure."""
    span = last - first
    return span + span / max(1, num_arrivals - 1)
