"""Scales trace tokens to replayed tokens."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn

__all__ = ["TokenScale"]


@dataclass(frozen=True, slots=True)
class TokenScale:
    """A scale that turns each trace block into a whole number of replayed tokens.

    Attributes:
        trace_block_tokens: Tokens in a block of the trace.
        block_tokens: Replayed tokens for each of them, >= 1.
    """

    trace_block_tokens: int
    block_tokens: int

    @classmethod
    def from_factor(cls, factor: float, *, trace_block_tokens: int) -> TokenScale:
        """Return the scale of `factor`, which must make a block a whole number of tokens.

        Raises:
            ConfigError: A block would become less than one token, or not a whole number.
        """
        exact = trace_block_tokens * factor
        whole = round(exact)
        if whole < 1 or abs(exact - whole) > 1e-6:
            below = max(1, int(exact))
            choices = ", ".join(f"{n / trace_block_tokens:g}" for n in (below, below + 1))
            raise ConfigError(
                f"token scale {factor!r} makes a trace block of {trace_block_tokens} tokens "
                f"{exact:g} tokens; expected a whole number, at least 1",
                hint=f"nearest valid token scales: {choices}",
            )
        return cls(trace_block_tokens, whole)

    @property
    def factor(self) -> float:
        """Replayed tokens per trace token."""
        return self.block_tokens / self.trace_block_tokens

    def tail_tokens(self, turn: Turn) -> int:
        """Replayed tokens after the turn's last full block; at least 1 if there is none."""
        full_tokens = len(turn.block_ids) * self.trace_block_tokens
        tail = round(max(0, turn.prompt_tokens - full_tokens) * self.factor)
        return tail if turn.block_ids else max(1, tail)

    def prompt_tokens(self, turn: Turn) -> int:
        """Length of the turn's replayed prompt, >= 1."""
        return len(turn.block_ids) * self.block_tokens + self.tail_tokens(turn)

    def output_tokens(self, turn: Turn) -> int:
        """Length of the turn's replayed answer, >= 1."""
        return max(1, round(turn.output_tokens * self.factor))

    def peak_tokens(self, session: Session) -> int:
        """Largest prompt plus answer of the session, as replayed."""
        return max(self.prompt_tokens(turn) + self.output_tokens(turn) for turn in session.turns)
