"""Maps trace blocks to the block keys of an engine with another block size."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn
from holdfast.traces.scaling import TokenScale

__all__ = ["BlockGrid"]

_KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """A mapping of scaled trace blocks to engine blocks.

    One of the two sizes must be a multiple of the other, so that each key names exactly one engine
    block's content. Tokens after a prompt's last full trace block are never shared.

    Attributes:
        scale: Replayed tokens per trace block.
        engine_block_tokens: Tokens in a block of the engine.
    """

    scale: TokenScale
    engine_block_tokens: int

    def __post_init__(self) -> None:
        trace, engine = self.scale.block_tokens, self.engine_block_tokens
        if engine < 1 or (trace % engine and engine % trace):
            raise ConfigError(
                f"a trace block is {trace} replayed tokens and an engine block {engine}; expected "
                "one to be a multiple of the other",
                hint=f"--block-size {trace} fits",
            )

    @classmethod
    def of(cls, session: Session, token_scale: float, engine_block_tokens: int) -> BlockGrid:
        """Return the grid of a session with scaled tokens.

        Raises:
            ConfigError: The scale or the engine's block size does not fit the trace's blocks.
        """
        scale = TokenScale.from_factor(token_scale, trace_block_tokens=session.block_size_tokens)
        return cls(scale, engine_block_tokens)

    def keys(self, turn: Turn, salt: bytes = b"") -> list[bytes]:
        """The keys of a prompt's engine blocks that full trace blocks cover. Pure.

        Args:
            turn: The turn with the prompt.
            salt: Ends every key; prompts with different salts share no block.
        """
        trace, engine = self.scale.block_tokens, self.engine_block_tokens
        if engine >= trace:
            stride = engine // trace
            ids = turn.block_ids[stride - 1 :: stride]
            return [i.to_bytes(_KEY_BYTES, "big") + salt for i in ids]
        parts = range(trace // engine)
        return [
            (i * len(parts) + part).to_bytes(_KEY_BYTES, "big") + salt
            for i in turn.block_ids
            for part in parts
        ]
