"""Orders within tenants: what one tenant prefers changes nothing for the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from holdfast.core.turn import Turn

__all__ = ["put_into_own_order", "reorder_within"]

T = TypeVar("T")


def reorder_within(
    items: Sequence[T], group_of: Callable[[T], Hashable], key: Callable[[T], Any]
) -> list[T]:
    """Sort the items of each group by `key`; a group keeps its positions. Pure."""
    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[group_of(item)].append(item)
    ordered = {group: iter(sorted(members, key=key)) for group, members in groups.items()}
    return [next(ordered[group_of(item)]) for item in items]


def put_into_own_order(turn: Turn, waiting: Iterable[Turn]) -> None:
    """Let a new turn pass less urgent ones of its tenant. Mutates the turns.

    It takes the position, and the end of the wait bound, of the first of them; each of those takes
    the next one's, and the last the new turn's. So no turn of another tenant waits longer.

    Args:
        turn: The turn.
        waiting: Its tenant's other turns that wait and have not run.
    """
    urgency = turn.session.own_priority
    passed = [t for t in waiting if t.session.own_priority > urgency]
    passed = sorted((t for t in passed if t.priority == turn.priority), key=lambda t: t.sequence)
    positions = [(t.sequence, t.due_s) for t in (*passed, turn)]
    for moved, (sequence, due_s) in zip((turn, *passed), positions, strict=True):
        moved.sequence, moved.due_s = sequence, due_s
