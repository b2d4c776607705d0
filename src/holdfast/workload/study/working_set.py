"""Measures the working set: live sessions' contexts, shared blocks counted once."""

from __future__ import annotations

from array import array

import msgspec
import numpy as np

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.overlay import OverlayEvent
from holdfast.workload.study.steps import Blocks, reach

__all__ = ["WorkingSetAdmission", "WorkingSetMeter"]

_NUM_POINTS = 300


class WorkingSetAdmission(msgspec.Struct, frozen=True):
    """Size of the working set over time.

    A session is live from its first request to the end of its last answer.

    Attributes:
        tokens: Distribution over the time at full load.
        peak_tokens: Maximum at any time.
        at_s: Evenly spaced times at full load.
        tokens_at: The working set at each of them.
    """

    tokens: Distribution
    peak_tokens: int
    at_s: tuple[float, ...]
    tokens_at: tuple[int, ...]


class WorkingSetMeter:
    """Computes the working set from the events of an overlay."""

    def __init__(self) -> None:
        self._num_users = np.zeros(1, dtype=np.int64)
        self._paths: dict[int, Blocks] = {}
        self._unshared_tokens: dict[int, int] = {}
        self._tokens = 0
        self._at_s = array("d")
        self._tokens_at = array("d")

    def take(self, event: OverlayEvent) -> None:
        """Add the next event. A prompt and its whole answer count from the request on."""
        session = event.session
        path = self._paths.pop(session.index, np.empty(0, dtype=np.int64))
        self._tokens -= self._unshared_tokens.pop(session.index, 0)
        if event.turn_index is None:
            self._release(path, session.block_tokens)
        else:
            step = session.steps[event.turn_index]
            self._release(path[step.num_kept :], session.block_tokens)
            self._hold(step.added, session.block_tokens)
            self._paths[session.index] = step.after(path)
            context = step.turn.prompt_tokens + step.turn.output_tokens
            unshared = max(0, context - step.num_blocks * session.block_tokens)
            self._unshared_tokens[session.index] = unshared
            self._tokens += unshared
        self._at_s.append(event.at_s)
        self._tokens_at.append(self._tokens)

    def result(self, full_from_s: float, full_until_s: float) -> WorkingSetAdmission:
        """The working set over time; pure.

        Args:
            full_from_s: Time at which the overlay reached its load.
            full_until_s: Start of the last session, >= `full_from_s`. If the two are equal the
                whole time counts.
        """
        at_s, tokens = np.asarray(self._at_s), np.asarray(self._tokens_at)
        if full_from_s == full_until_s:
            full_from_s, full_until_s = float(at_s[0]), float(at_s[-1])
        ends = np.append(at_s[1:], at_s[-1])
        lasted_s = np.minimum(ends, full_until_s) - np.maximum(at_s, full_from_s)
        lasted_s = np.maximum(lasted_s, 0.0)
        if not lasted_s.any():
            lasted_s = np.ones_like(at_s)
        points_s = np.linspace(full_from_s, full_until_s, _NUM_POINTS)
        indices = np.searchsorted(at_s, points_s, side="right") - 1
        return WorkingSetAdmission(
            tokens=distribution_of(tokens, lasted_s),
            peak_tokens=int(tokens.max()),
            at_s=tuple(points_s.tolist()),
            tokens_at=tuple(tokens[indices].astype(int).tolist()),
        )

    def _hold(self, blocks: Blocks, block_tokens: int) -> None:
        self._num_users = reach(self._num_users, int(blocks.max(initial=-1)) + 1, 0)
        self._tokens += block_tokens * int(np.count_nonzero(self._num_users[blocks] == 0))
        self._num_users[blocks] += 1

    def _release(self, blocks: Blocks, block_tokens: int) -> None:
        self._num_users[blocks] -= 1
        self._tokens -= block_tokens * int(np.count_nonzero(self._num_users[blocks] == 0))
