"""Writer of Mooncake's request traces: each turn is an arrival of its own.

Holds all rows in memory, to write them in the order of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

import msgspec

from holdfast.traces.order import families
from holdfast.traces.record import Session, Turn
from holdfast.traces.timeline import family_timeline
from holdfast.traces.writers.block_names import BlockNames
from holdfast.traces.writers.losses import Kept, Losses

__all__ = ["input_length", "milliseconds", "write_mooncake"]

_BLOCK_TOKENS = 512
_KEPT = Kept(
    session={"session_id", "block_size_tokens", "turns", "start_s"},
    turn={"gap_s", "prompt_tokens", "output_tokens", "block_ids"},
)


def write_mooncake(
    sessions: Iterable[Session], file: IO[bytes], *, block_size_tokens: int | None = None
) -> Losses:
    """Write sessions as open-loop arrivals.

    Args:
        sessions: Of one reading, sub-agents after their main agents.
        file: Takes the lines; mutated.
        block_size_tokens: Tokens in a block; None is the format's default, 512.

    Returns:
        Losses. "Session.block_size_tokens" counts sessions whose blocks became larger,
        "Session.turns" sessions of several turns, which lose their link, "Session without start_s"
        sessions that now arrive at 0, "Turn without latency_s" answers that now take no time, and
        "Turn.prompt_tokens" empty prompts, which are written with one token.

    Raises:
        ConfigError: Neither block size is a multiple of the other.
    """
    names = BlockNames(block_size_tokens or _BLOCK_TOKENS)
    encoder = msgspec.json.Encoder()
    losses = Losses()
    rows: list[tuple[float, bytes]] = []
    for family in families(sessions):
        timeline = family_timeline(family)
        for session in family:
            _KEPT.count(session, losses)
            losses["Session.block_size_tokens"] += names.is_coarser(session)
            losses["Session.turns"] += len(session.turns) > 1
            losses["Session without start_s"] += session is family[0] and session.start_s is None
            spans = timeline[session.session_id]
            for turn, span in zip(session.turns, spans, strict=True):
                is_followed = turn is not session.turns[-1]
                losses["Turn without latency_s"] += is_followed and turn.latency_s is None
                row = {
                    "timestamp": milliseconds(span.start_s),
                    "input_length": input_length(turn, losses),
                    "output_length": turn.output_tokens,
                    "hash_ids": names.of(session, turn),
                }
                rows.append((span.start_s, encoder.encode(row) + b"\n"))
    rows.sort(key=lambda row: row[0])
    file.writelines(row for _, row in rows)
    return +losses


def input_length(turn: Turn, losses: Losses) -> int:
    """Return a prompt's length, at least 1 as Mooncake requires; adds to `losses`."""
    losses["Turn.prompt_tokens"] += turn.prompt_tokens < 1
    return max(1, turn.prompt_tokens)


def milliseconds(time_s: float) -> float:
    """Convert seconds to milliseconds, rounded to a nanosecond; pure."""
    time_ms = round(time_s * 1000, 6)
    return int(time_ms) if time_ms.is_integer() else time_ms
