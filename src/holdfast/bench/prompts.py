"""Prompts as token ids, with exactly the shared prefixes of a trace's blocks.

Every trace block becomes the digits of its id, least significant first, so that two blocks differ
and prompts share no more than their blocks do. The tokens after the last full block are other
ones, different for every turn, so that they match nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.errors import ConfigError
from holdfast.traces.new_tokens import kept_blocks
from holdfast.traces.record import Session
from holdfast.traces.scaling import TokenScale

__all__ = ["DEFAULT_ALPHABET", "Alphabet", "Prompt", "PromptBuilder"]


@dataclass(frozen=True, slots=True)
class Alphabet:
    """Token ids that prompts are made of.

    Attributes:
        first_token_id: Lowest id used; those below are often special tokens.
        num_block_tokens: Ids for blocks, >= 2.
        num_tail_tokens: Ids above those, for tails, >= 2.
    """

    first_token_id: int = 64
    num_block_tokens: int = 1536
    num_tail_tokens: int = 256

    @classmethod
    def for_vocabulary(cls, vocab_size: int) -> Alphabet:
        """Use a vocabulary of `vocab_size` tokens, leaving some ids at its low end.

        Raises:
            ConfigError: It is too small for prompts.
        """
        first_token_id = min(64, vocab_size // 4)
        num_tail_tokens = min(256, vocab_size // 4)
        num_block_tokens = vocab_size - first_token_id - num_tail_tokens
        if num_tail_tokens < 2:
            raise ConfigError(f"vocabulary size is {vocab_size!r}; expected at least 8")
        return cls(first_token_id, num_block_tokens, num_tail_tokens)

    @property
    def vocab_size(self) -> int:
        """Smallest vocabulary that has all the ids."""
        return self.first_token_id + self.num_block_tokens + self.num_tail_tokens


DEFAULT_ALPHABET = Alphabet()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One turn's prompt.

    Attributes:
        token_ids: The prompt.
        output_tokens: Length of the answer to ask for, >= 1.
        appended_tokens: Tokens beyond those of this session's earlier prompts.
    """

    token_ids: list[int]
    output_tokens: int
    appended_tokens: int


class PromptBuilder:
    """Builds the prompts of one run; keeps none of them.

    Args:
        token_scale: Replayed tokens per trace token; a block must become a whole number.
        alphabet: The token ids to use.
    """

    def __init__(self, token_scale: float, alphabet: Alphabet = DEFAULT_ALPHABET) -> None:
        self._factor = token_scale
        self._alphabet = alphabet
        self._num_tails = 0

    def scale(self, session: Session) -> TokenScale:
        """Return the session's scale; pure. Raises `ConfigError` as `TokenScale` does."""
        return TokenScale.from_factor(self._factor, trace_block_tokens=session.block_size_tokens)

    def check(self, session: Session) -> None:
        """Check that the blocks of a session get distinct tokens; pure.

        Raises:
            ConfigError: A block has too few tokens for its id, or the scale does not fit.
        """
        scale = self.scale(session)
        capacity = self._alphabet.num_block_tokens ** min(scale.block_tokens, _MAX_DIGITS)
        highest = max((max(turn.block_ids, default=0) for turn in session.turns), default=0)
        if highest >= capacity:
            raise ConfigError(
                f"{scale.block_tokens} token(s) a block give {capacity} distinct blocks; "
                f"session {session.session_id!r} has block id {highest}",
                hint="raise --token-scale or --vocab-size, or run fewer --sessions",
            )

    def build(self, session: Session, turn_index: int) -> Prompt:
        """Build the prompt of one turn; counts up the tail's number.

        Every call gives its tail another number, so that tails long enough to hold it all differ.
        """
        scale = self.scale(session)
        turn = session.turns[turn_index]
        blocks = self._spell(
            np.asarray(turn.block_ids, dtype=np.int64),
            scale.block_tokens,
            self._alphabet.num_block_tokens,
        )
        tail_tokens = scale.tail_tokens(turn)
        tail = self._spell(
            np.asarray([self._num_tails], dtype=np.int64),
            tail_tokens,
            self._alphabet.num_tail_tokens,
        )
        self._num_tails += 1
        token_ids = (blocks + self._alphabet.first_token_id).tolist()
        tail_start = self._alphabet.first_token_id + self._alphabet.num_block_tokens
        token_ids.extend((tail + tail_start).tolist())
        kept = kept_blocks(session, turn_index)
        return Prompt(
            token_ids=token_ids,
            output_tokens=scale.output_tokens(turn),
            appended_tokens=len(token_ids) - kept * scale.block_tokens,
        )

    @staticmethod
    def _spell(numbers: npt.NDArray[np.int64], num_digits: int, base: int) -> npt.NDArray[np.int64]:
        """Digits of each number in turn; after the highest they repeat from the lowest."""
        significant = min(num_digits, _MAX_DIGITS)
        digits = np.empty((len(numbers), significant), dtype=np.int64)
        rest = numbers
        for position in range(significant):
            rest, digits[:, position] = np.divmod(rest, base)
        columns = np.arange(num_digits) % significant if significant else np.arange(0)
        return digits[:, columns].reshape(-1)


_MAX_DIGITS = 16
