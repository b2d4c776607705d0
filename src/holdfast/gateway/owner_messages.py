"""What the replicas of a gateway and the owner of their decisions tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.coordinator import Asked
from holdfast.gateway.sessions_in_use import SessionKey
from holdfast.gateway.shared_origins import Origin

__all__ = [
    *("Answered", "EngineLost", "EngineSeen", "Ended", "Event", "Known", "OwnerLink"),
    *("Refused", "Report", "Sent", "Started", "TokensCounted"),
]


class Sent(NamedTuple):
    """Where a request goes, now that its engine has space.

    Attributes:
        engine: Name of the engine.
        reason: Why; see `routing.REASONS`.
        missing_bytes: Prompt bytes that the engine has to compute (bytes).
        session_key: Its session.
        elsewhere_ratio: As in `Placement`.
    """

    engine: str
    reason: str
    missing_bytes: int
    session_key: SessionKey
    elsewhere_ratio: float


class Refused(NamedTuple):
    """A request that no engine may answer; see `Refusal`."""

    status: int
    message: str


class Started(NamedTuple):
    """The first token of a request's answer came."""

    number: int


class Ended(NamedTuple):
    """A request is over, however it ended."""

    number: int
    tail: AnswerTail


class TokensCounted(NamedTuple):
    """A prompt of so many bytes had so many tokens on an engine."""

    engine: str
    prompt_bytes: int
    prompt_tokens: int


class Answered(NamedTuple):
    """An engine has stored a tenant's answer."""

    answer_id: str
    engine: str
    tenant: str


class EngineLost(NamedTuple):
    """An engine does not answer a replica; it may be dead, or too busy to connect."""

    engine: str
    is_dead: bool


Event = Started | Ended | TokensCounted | Answered | EngineLost


class Report(NamedTuple):
    """What a replica tells at each beat.

    Attributes:
        next_number: The number of its next request; each number is used once.
        open_numbers: Its requests below that which have not ended.
        events: What happened since its last report, in order.
        metrics: Its counts in Prometheus' text format; None if not due.
    """

    next_number: int
    open_numbers: frozenset[int]
    events: tuple[Event, ...] = ()
    metrics: str | None = None


class Known(NamedTuple):
    """What a replica knows that an owner may have lost.

    Attributes:
        origins: Sessions that it sent, each with its age in place of a time.
        answers: Stored answers that it passed.
    """

    origins: tuple[tuple[SessionKey, Origin], ...] = ()
    answers: tuple[Answered, ...] = ()


class EngineSeen(NamedTuple):
    """An engine as the owner sees it.

    Attributes:
        is_up: Whether it answers.
        bytes_per_token: As in `Engine`.
    """

    is_up: bool
    bytes_per_token: float


class OwnerLink(Protocol):
    """How a replica reaches the owner; any error means that it is away."""

    async def place(self, replica: str, number: int, asked: Asked) -> Sent | Refused | None:
        """Wait for a request's engine and its space there; None asks for a `join`."""

    async def report(self, replica: str, report: Report) -> Mapping[str, EngineSeen] | None:
        """Report, and read the state of engines; None if the owner wants a `join`."""

    async def join(self, replica: str, known: Known) -> None:
        """Introduce a replica."""
