"""The contract of call policies: keep results of tool calls, predict calls.

`holdfast mcp-proxy` asks them. The rules are those of all policies: a policy observes events and
answers questions, questions change nothing, and the host carries out the answers. The host alone
knows what a result depends on: what a policy recalls is given only while it holds, and what it
predicts is made only where nothing is changed by that. So no policy can make an answer stale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.policies.spec import Configured

__all__ = [
    *("AskedCall", "CallAnswered", "CallAsked", "CallEvent", "CallPolicy", "KnownResult"),
    *("Prediction", "PredictionSettled", "ResultOutdated", "SessionEnded"),
]


@dataclass(frozen=True, slots=True, eq=False)
class AskedCall:
    """A call of a tool, made for the client or early.

    Attributes:
        session: Number of the client's session; no later session has it.
        tool: Its tool.
        arguments: Its arguments, JSON values by name.
        key: What equal calls share.
        is_change: Whether it may change something.
        asked_s: When (s, monotonic).
    """

    session: int
    tool: str
    arguments: Mapping[str, Any]
    key: str
    is_change: bool
    asked_s: float


@dataclass(frozen=True, slots=True, eq=False)
class KnownResult:
    """A result that may answer equal calls of its session while it holds.

    Attributes:
        call: What it answered.
        result: The server's result, word for word.
        num_bytes: Its length as JSON (bytes).
        took_s: How long the call took (s).
        ended_s: When it ended (s, monotonic).
        version: What it depends on, as it was then; the host's own.
    """

    call: AskedCall
    result: Mapping[str, Any]
    num_bytes: int
    took_s: float
    ended_s: float
    version: object


@dataclass(frozen=True, slots=True)
class Prediction:
    """A call that may come next.

    Attributes:
        tool: Its tool.
        arguments: Its arguments, JSON values by name.
        is_trial: Whether it is only compared with what comes, and not made.
    """

    tool: str
    arguments: Mapping[str, Any]
    is_trial: bool = False


@dataclass(frozen=True, slots=True)
class CallAsked:
    """The client asks for a call; `recall` may follow."""

    call: AskedCall


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """A call has a result: the server's, an early one, or one that was known.

    Attributes:
        call: The call; one that was made early has not been asked.
        result: Its result, which may be a tool's error.
        took_s: How long the server took (s); None if this answer is another call's.
        known: What may be recalled; None if the result is not to be given again.
    """

    call: AskedCall
    result: Mapping[str, Any]
    took_s: float | None
    known: KnownResult | None


@dataclass(frozen=True, slots=True)
class ResultOutdated:
    """A recalled result no longer holds, and never will."""

    known: KnownResult


@dataclass(frozen=True, slots=True)
class PredictionSettled:
    """A prediction has come true, or was dropped.

    Attributes:
        session: Whose it was.
        prediction: What `predict` answered.
        is_hit: Whether the client asked for exactly that call; of one that was made, whether its
            result answered it.
        lead_s: How long before the client it was made, or would have been (s).
        saved_s: Time that the client did not wait (s); 0 for a trial.
        wasted_s: Time that the server worked for nothing (s); 0 for a trial.
    """

    session: int
    prediction: Prediction
    is_hit: bool
    lead_s: float
    saved_s: float
    wasted_s: float


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A client's session is over, and all results of it with it."""

    session: int


CallEvent = CallAsked | CallAnswered | ResultOutdated | PredictionSettled | SessionEnded
"""What a call policy observes. Answers come in any order; those to calls that a client has
cancelled do not come at all.
"""


class CallPolicy(Configured):
    """Keeps results and predicts calls, for one tenant; as it stands it does neither."""

    def observe(self, event: CallEvent) -> None:
        """Take note of an event. Mutates the policy only."""

    def recall(self, call: AskedCall) -> KnownResult | None:
        """The known result of an equal call of the session; None has none. Pure."""
        del call
        return None

    def predict(self, session: int) -> Sequence[Prediction]:
        """Calls to make before the session's client asks for them, best first. Pure.

        Asked while the client waits for nothing. The host makes a few of them at most.
        """
        del session
        return ()
