"""Worth of keeping a run of blocks: expected returns a second, summed over all who would lose it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from holdfast.core.chains import Segment
from holdfast.core.sessions import Session, SessionState
from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["LiveWorth", "WorthClass"]

_MAX_USERS_SUMMED = 64


class WorthClass:
    """Classes of worth, cheapest first: no known user, users that closed, users that may return."""

    UNOWNED = 0
    CLOSED = 1
    LIVE = 2


class LiveWorth:
    """Order by probability of return over expected wait, a block costing the same to restore at any depth.

    What: a block kept for a session saves its restore cost when the session returns and occupies memory until
    then, so per block-second it is worth P(return) * restore cost / expected wait. Shared runs are worth the sum
    over the sessions behind them, and what newcomers that begin with them would lose.

    Source: Belady, IBM Systems Journal 5(2), 1966, with the known return time replaced by its expectation
    given what ended the turn and the time since, as in CacheWise (arXiv 2606.16824).
    Differs: sums over users of shared runs, keeps chains whole from the front, has no periodic rescoring of
    every block.
    """

    use_median = False
    def __init__(self, returns: ReturnTimeModel) -> None:
        self._returns = returns

    def rate(self, session: Session, now_s: float, restore_s: float, return_share: float) -> float:
        """Expected returns a second of a paused session (1/s, >= 0).

        Args:
            session: The session.
            now_s: Host's clock (s).
            restore_s: Time to recompute what the session holds; the scale of what is soon (s).
            return_share: Share of sessions that came back after they or a sibling moved on.
        """
        state = session.state
        if state is SessionState.CLOSED or state is SessionState.SUPERSEDED:
            return 0.0
        if state.is_busy:
            return 1.0 / max(restore_s, 1e-9)
        elapsed_s = max(now_s - session.paused_at_s, 0.0)
        if session.expected_gap_s is not None and elapsed_s < session.expected_gap_s:
            return 1.0 / max(session.expected_gap_s - elapsed_s, 1e-9)
        residual_s = max(
            self._returns.residual_quantile_s(session.gap, elapsed_s, 0.5, scale_s=restore_s),
            self._returns.residual_quantile_s(session.gap, 0.0, 0.5, scale_s=restore_s),
            elapsed_s if self.use_median else 0.0
        )
        probability = self._returns.return_probability(session.gap, elapsed_s)
        if session.has_moved_on:
            probability *= return_share
        return probability / max(residual_s, 1e-9)

    @staticmethod
    def users(segment: Segment[Any]) -> Iterator[Session]:
        """Sessions whose chain contains the run, a bounded number of them."""
        return islice((s for run in segment.subtree() for s in run.tails), _MAX_USERS_SUMMED)

    def worth(self, segment: Segment[Any], now_s: float) -> tuple[int, float]:
        """Class and worth of a run's free blocks (1/s a block); the sum of its users' last computed rates."""
        total = 0.0
        num_users = 0
        for session in self.users(segment):
            total += session.rate
            num_users += session.state is not SessionState.CLOSED
        if not num_users:
            return WorthClass.CLOSED, total
        return WorthClass.LIVE, total
