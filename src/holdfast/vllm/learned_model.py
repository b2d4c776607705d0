"""What an engine learns and keeps from one start to the next.

Process: engine core.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from holdfast.predict.agent_calls import AgentCalls
from holdfast.predict.agent_calls_state import decode_calls, encode_calls
from holdfast.predict.agent_runs import AgentRuns
from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.session_speed import SpeedFactor

__all__ = ["SharedModel"]

_SCHEMA: Final = "holdfast-learned/2"


class _Learned(msgspec.Struct):
    """The content of a file.

    Attributes:
        schema: Tells it from a file of return times alone.
        returns: Return times.
        agent_calls: Agents' calls.
        agent_runs: Sub-agents' runs.
    """

    schema: str
    returns: bytes
    agent_calls: bytes
    agent_runs: bytes = b""


class _SharedRuns(AgentRuns):
    """Runs that one thread may save while another learns."""

    def __init__(self, returns: ReturnTimeModel) -> None:
        super().__init__(returns)
        self._lock = threading.Lock()

    def observe_run(self, pause: GapFeatures, duration_s: float) -> None:
        """See `AgentRuns`."""
        with self._lock:
            super().observe_run(pause, duration_s)

    def observe_join(self, pause: GapFeatures, lag_s: float) -> None:
        """See `AgentRuns`."""
        with self._lock:
            super().observe_join(pause, lag_s)

    def observe_early_return(self, pause: GapFeatures) -> None:
        """See `AgentRuns`."""
        with self._lock:
            super().observe_early_return(pause)

    def to_bytes(self) -> bytes:
        """See `AgentRuns`."""
        with self._lock:
            return super().to_bytes()


class SharedModel(ReturnTimeModel):
    """All that is saved; one thread may save it while another learns.

    Attributes:
        agent_calls: Which agents are called next, as learned so far.
        agent_runs: How long sub-agents run, as learned so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.agent_calls = AgentCalls()
        self.agent_runs: AgentRuns = _SharedRuns(self)
        self._num_gaps = 0
        self._lock = threading.Lock()

    @property
    def num_changes(self) -> int:
        """What was learned since the start (count)."""
        return self._num_gaps + self.agent_calls.num_called + self.agent_runs.num_observed

    def observe(
        self,
        features: GapFeatures,
        gap_s: float,
        *,
        censored: bool = False,
        speed: SpeedFactor | None = None,
    ) -> None:
        """See `ReturnTimeModel`."""
        with self._lock:
            super().observe(features, gap_s, censored=censored, speed=speed)
            self._num_gaps += 1

    def to_bytes(self) -> bytes:
        """All that is saved, encoded for `from_bytes`."""
        with self._lock:
            returns = super().to_bytes()
        calls, runs = encode_calls(self.agent_calls), self.agent_runs.to_bytes()
        return msgspec.msgpack.encode(_Learned(_SCHEMA, returns, calls, runs))

    @classmethod
    def from_bytes(cls, data: bytes) -> SharedModel:
        """What `to_bytes` encoded, or older versions without agents' calls or runs.

        Raises:
            ValueError: `data` is not such an encoding.
        """
        try:
            learned = msgspec.msgpack.decode(data, type=_Learned)
        except msgspec.ValidationError:
            learned = _Learned(_SCHEMA, data, b"")
        if learned.schema != _SCHEMA:
            raise ValueError(f"not what Holdfast learned: schema {learned.schema!r}")
        model = super().from_bytes(learned.returns)
        assert isinstance(model, SharedModel)
        if learned.agent_calls:
            model.agent_calls = decode_calls(learned.agent_calls)
        if learned.agent_runs:
            model.agent_runs.restore(learned.agent_runs)
        return model
