"""Contexts to evaluate eviction on, and questions with known answers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Question", "Sample", "Turn"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question that leaves nothing in the session.

    Attributes:
        text: The question.
        lead: How its answer begins, so that what follows is the answer itself.
        answer: What follows, from its first space on.
    """

    text: str
    lead: str
    answer: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Text that a session goes on with, and questions to ask then.

    Attributes:
        text: The text.
        questions: What to ask once the session is compacted.
    """

    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One context with all that is asked about it.

    Attributes:
        task: Its kind.
        seed: What it was generated with; of a recorded session, its number.
        turns: Its turns (at least one).
    """

    task: str
    seed: int
    turns: tuple[Turn, ...]
