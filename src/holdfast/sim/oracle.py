"""The oracle of a simulated run: its future, read from its sessions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

from holdfast.sim.replays import Replays
from holdfast.traces.new_tokens import kept_blocks
from holdfast.traces.record import Session

__all__ = ["TraceOracle"]

_PROMPT_WEIGHT = 0.25  # of a prompt token, beside an output token


class TraceOracle:
    """Knows the recorded gap and prompts after each turn, scaled as in the run.

    Args:
        replays: The run's replays.
        time_scale: Simulated seconds per recorded second of a gap.
        answer_s_per_token: Assumed time per token of answers between two calls of an agent (s).
    """

    def __init__(
        self, replays: Replays, time_scale: float, answer_s_per_token: float = 0.0
    ) -> None:
        self._replays = replays
        self._time_scale = time_scale
        self._answer_s_per_token = answer_s_per_token
        self._work: dict[int, list[float]] = {}

    def gap_after_s(self, request_id: str) -> float:
        """Time from a turn's end to the next request of its agent (s; inf after the last).

        Other agents of the session may be called in between.
        """
        session, index = self._turn(request_id)
        number = _number(request_id)
        gap_s = 0.0
        for following in range(index + 1, len(session.turns)):
            turn = session.turns[following]
            gap_s += turn.gap_s * self._time_scale
            if turn.agent == session.turns[index].agent:
                return gap_s
            gap_s += self._answer_s_per_token * self._replays.output_tokens(number, following)
        return math.inf

    def work_left(self, request_id: str) -> float:
        """Output tokens and a quarter of new prompt tokens from a turn on (count)."""
        number = _number(request_id)
        if number not in self._work:
            turns = range(len(self._replays.session(number).turns))
            work = [self._work_of(number, index) for index in turns]
            self._work[number] = list(accumulate(reversed(work)))[::-1]
        return self._work[number][_index(request_id)]

    def session_id_of(self, request_id: str) -> str:
        """The session id of a turn's request."""
        return self._replays.session_id(_number(request_id))

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        """Yield the prefix hashes of each later turn of the session."""
        number = _number(request_id)
        session, index = self._turn(request_id)
        return (self._replays.keys(number, i) for i in range(index + 1, len(session.turns)))

    def _work_of(self, number: int, index: int) -> float:
        replays = self._replays
        num_kept = kept_blocks(replays.session(number), index) * replays.block_tokens(number)
        num_new = replays.prompt_tokens(number, index) - num_kept
        return _PROMPT_WEIGHT * num_new + replays.output_tokens(number, index)

    def _turn(self, request_id: str) -> tuple[Session, int]:
        """The session of a turn's request, and the turn's index."""
        return self._replays.session(_number(request_id)), _index(request_id)


def _number(request_id: str) -> int:
    return int(request_id.partition("-")[0])


def _index(request_id: str) -> int:
    return int(request_id.partition("-")[2])
