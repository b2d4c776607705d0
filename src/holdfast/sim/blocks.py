"""Trace blocks as engine blocks: which keys an engine of another block size would see."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn
from holdfast.traces.scaling import TokenScale

__all__ = ["BlockGrid"]

_KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """A trace's blocks, scaled, on an engine's blocks.

    One of the two sizes must be a multiple of the other: a key then names exactly what an engine
    block holds. Tokens behind a prompt's last full trace block are the turn's own.

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
        """The grid of a session whose tokens are scaled.

        Raises:
            ConfigError: Scale and blocks do not fit.
        """
        scale = TokenScale.from_factor(token_scale, trace_block_tokens=session.block_size_tokens)
        return cls(scale, engine_block_tokens)

    def keys(self, turn: Turn) -> list[bytes]:
        """The keys of a prompt's engine blocks, as far as trace blocks fill them. Pure."""
        trace, engine = self.scale.block_tokens, self.engine_block_tokens
        if engine >= trace:
            stride = engine // trace
            return [i.to_bytes(_KEY_BYTES, "big") for i in turn.block_ids[stride - 1 :: stride]]
        parts = range(trace // engine)
        return [
            (i * len(parts) + part).to_bytes(_KEY_BYTES, "big")
            for i in turn.block_ids
            for part in parts
        ]
