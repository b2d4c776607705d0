"""Overlays sessions in time, a given number at once.

Recordings of agents hardly overlap, since each comes from one developer's machine. The overlay is a
closed loop at the recorded gaps: when one session ends the next starts.
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
    """Service times of requests without queueing.

    Attributes:
        prompt_s_per_token: Per prompt token that is not in the session's previous prompt, >= 0.
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
    """A turn's request or a session's end.

    Attributes:
        at_s: Time, from the start of the overlay.
        session: The session.
        turn_index: The requested turn; None for the session's end.
        end_s: End of the turn's answer; equals `at_s` for the session's end.
    """

    at_s: float
    session: SteppedSession
    turn_index: int | None
    end_s: float


@dataclass(slots=True)
class _Family:
    """The live sessions of one family.

    `waiting` has the sub-agents that start at the end of a turn, by parent and turn index.
    """

    num_open: int
    waiting: dict[tuple[int, int], list[SteppedSession]] = field(default_factory=dict)


class Overlay:
    """Schedules families of sessions and yields their events in time order.

    A sub-agent starts at the end of the turn that called it, or with its family where that turn is
    unknown. It does not count towards the concurrency.

    Args:
        concurrency: Live families, >= 1. None starts each at its recorded arrival.
        service: Service times of requests.
        gap_cap_s: Cap of longer gaps; None keeps them.
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
        """Time of the last event or of the last family's start."""
        return self._now_s

    @property
    def slot_s(self) -> float:
        """Sum over families of their live times."""
        return self._slot_s

    @property
    def is_full(self) -> bool:
        """Whether the next family must wait; never with recorded arrivals."""
        return self._num_live == self._concurrency

    def add(self, members: Sequence[SteppedSession]) -> Iterator[OverlayEvent]:
        """Yield the events until the family can start, then start it.

        Args:
            members: A main agent, then its sub-agents.

        Raises:
            ConfigError: The overlay uses recorded arrivals, and the family has none or arrives
                before the last one.
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
        """Yield the remaining events."""
        while self._due:
            yield self._advance()

    def _arrival_s(self, session: SteppedSession) -> float:
        if session.start_s is None:
            raise ConfigError("a session has no recorded arrival; expected one for an open loop")
        if self._first_start_s is None:
            self._first_start_s = session.start_s
        start_s = session.start_s - self._first_start_s
        if start_s < self._now_s:
            raise ConfigError(
                f"a session arrives at {session.start_s!r} s; expected no arrival before the last"
            )
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
