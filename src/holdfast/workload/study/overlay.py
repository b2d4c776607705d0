"""Sessions laid over each other in time, a given number at once, as an engine would see them.

Recordings of agents hardly overlap: they were made on one developer's machine. Here sessions run
closed-loop: when one ends the next starts, at the recorded gaps.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from holdfast.errors import ConfigError
from holdfast.workload.study.steps import SteppedSession

__all__ = ["Overlay", "OverlayEvent", "ServiceTime"]


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long requests take when nothing is in their way.

    Attributes:
        prompt_s_per_token: Per prompt token that the session's previous prompt does not have, >= 0.
        output_s_per_token: Per answer token, >= 0.
    """

    prompt_s_per_token: float
    output_s_per_token: float

    def __post_init__(self) -> None:
        for name in ("prompt_s_per_token", "output_s_per_token"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected seconds >= 0")

    def of(self, session: SteppedSession, turn_index: int) -> float:
        """Time from the request to the end of the answer (s). Pure."""
        step = session.steps[turn_index]
        new_tokens = max(0, step.turn.prompt_tokens - step.num_kept * session.block_tokens)
        return (
            new_tokens * self.prompt_s_per_token + step.turn.output_tokens * self.output_s_per_token
        )


@dataclass(frozen=True, slots=True)
class OverlayEvent:
    """Something that happens.

    Attributes:
        at_s: When, from the start of the overlay.
        session: To whom.
        turn_index: Which turn is requested; None when the session has ended.
        end_s: When its answer will end; equals `at_s` when the session has ended.
    """

    at_s: float
    session: SteppedSession
    turn_index: int | None
    end_s: float


@dataclass(slots=True)
class _Family:
    """Sessions that take one place together.

    `waiting` holds sub-agents by the parent and its turn, at whose end they start.
    """

    num_open: int
    waiting: dict[tuple[int, int], list[SteppedSession]] = field(default_factory=dict)


class Overlay:
    """Takes families of sessions in their order, and tells what happens until the next has room.

    A sub-agent starts when the turn that called it ends, or with its family where that is not
    known. It needs no place of its own.

    Args:
        concurrency: Families at once, >= 1. None starts each at its recorded arrival.
        service: How long requests take.
        gap_cap_s: Longer gaps are cut to this. None keeps them.
    """

    def __init__(
        self, concurrency: int | None, service: ServiceTime, gap_cap_s: float | None = None
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency!r}; expected at least 1")
        self._concurrency = concurrency
        self._service = service
        self._gap_cap_s = float("inf") if gap_cap_s is None else gap_cap_s
        self._order = count()
        self._due: list[tuple[float, int, _Family, SteppedSession, int | None]] = []
        self._num_live = 0
        self._first_start_s: float | None = None
        self._now_s = 0.0
        self._slot_s = 0.0

    @property
    def now_s(self) -> float:
        """When the last thing happened, or the last family started."""
        return self._now_s

    @property
    def slot_s(self) -> float:
        """Time that families were live, summed over families."""
        return self._slot_s

    @property
    def is_full(self) -> bool:
        """Whether another family has to wait; never with recorded arrivals."""
        return self._num_live == self._concurrency

    def add(self, members: Sequence[SteppedSession]) -> Iterator[OverlayEvent]:
        """Yield what happens until the family can start, then start it.

        Args:
            members: A main agent and the sub-agents under it, in this order.

        Raises:
            ConfigError: Arrivals are asked for, and there is none or it is out of order.
        """
        if self._concurrency is None:
            start_s = self._arrival_s(members[0])
            while self._due and self._due[0][0] <= start_s:
                yield self._advance()
            self._pass_to(start_s)
        else:
            while self.is_full:
                yield self._advance()
        self._start(members)

    def finish(self) -> Iterator[OverlayEvent]:
        """Yield all that is still to happen."""
        while self._due:
            yield self._advance()

    def _arrival_s(self, session: SteppedSession) -> float:
        if session.start_s is None:
            raise ConfigError("recorded arrivals are asked for, and a session has none")
        if self._first_start_s is None:
            self._first_start_s = session.start_s
        start_s = session.start_s - self._first_start_s
        if start_s < self._now_s:
            raise ConfigError(f"a session arrives at {session.start_s!r} s, before the last one")
        return start_s

    def _start(self, members: Sequence[SteppedSession]) -> None:
        family = _Family(len(members))
        self._num_live += 1
        known = {member.index: len(member.steps) for member in members}
        for member in members:
            called_at = member.parent_turn
            parent = member.parent
            if parent in known and called_at is not None and called_at < known[parent]:
                family.waiting.setdefault((parent, called_at), []).append(member)
            else:
                self._push(self._now_s, family, member, 0)

    def _push(
        self, at_s: float, family: _Family, session: SteppedSession, turn_index: int | None
    ) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), family, session, turn_index))

    def _pass_to(self, at_s: float) -> None:
        self._slot_s += self._num_live * (at_s - self._now_s)
        self._now_s = at_s

    def _advance(self) -> OverlayEvent:
        at_s, _, family, session, turn_index = heapq.heappop(self._due)
        self._pass_to(at_s)
        if turn_index is None:
            family.num_open -= 1
            self._num_live -= family.num_open == 0
            return OverlayEvent(self._now_s, session, None, self._now_s)
        end_s = self._now_s + self._service.of(session, turn_index)
        for called in family.waiting.pop((session.index, turn_index), ()):
            self._push(end_s, family, called, 0)
        if turn_index + 1 < len(session.steps):
            gap_s = min(session.steps[turn_index + 1].turn.gap_s, self._gap_cap_s)
            self._push(end_s + gap_s, family, session, turn_index + 1)
        else:
            self._push(end_s, family, session, None)
        return OverlayEvent(self._now_s, session, turn_index, end_s)
