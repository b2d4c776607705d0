"""The point that a run belongs to: runs of one point can be compared."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.core.results import RunResult

__all__ = ["RunPoint"]


class RunPoint(NamedTuple):
    """A load on a cache.

    Attributes:
        concurrency: Sessions live at once.
        kv_tokens: Size of the KV cache; None where it is not known.
        session_ends: Whether requests said which one was the last of a session.
        window_s: Length of the part of the run that counts; None for all of it (s).
        fleet: The engines and their router; "" for one engine.
    """

    concurrency: int
    kv_tokens: int | None
    session_ends: str | None = None
    window_s: float | None = None
    fleet: str = ""

    @classmethod
    def of(cls, run: RunResult) -> RunPoint:
        """The point of a run. Pure."""
        ends, fleet = run.session_ends, run.fleet if isinstance(run.fleet, str) else ""
        return cls(run.concurrency, run.kv_tokens, ends, run.window_s, fleet)

    @property
    def order(self) -> tuple[int, int, str, float, str]:
        """Sort key: the lightest load first. Pure."""
        ends, window_s = self.session_ends or "", self.window_s or 0.0
        return self.concurrency, self.kv_tokens or 0, ends, window_s, self.fleet
