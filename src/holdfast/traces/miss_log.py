"""Reads why turns missed, from a decision log or a replay's records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.core.miss_record import MissRecord
from holdfast.core.results import TurnRecord
from holdfast.errors import TraceError
from holdfast.traces.formats.trace_file import TraceFile

__all__ = ["read_misses"]

_HINT: Final = (
    "expected Holdfast's decision log, which HOLDFAST_DECISION_LOG=FILE writes, or the records of "
    "holdfast replay --records FILE"
)
_LARGEST_BLOCK_TOKENS: Final = 128


class _Line(msgspec.Struct):
    event: str = ""


class _Replayed(TurnRecord, frozen=True):
    """A turn of a replay, and its endpoint's policy."""

    policy: str = ""


def read_misses(path: Path) -> Iterator[MissRecord]:
    """Yield the turns of a file, in the order of their ends.

    A last line without its end is ignored: the engine may be writing it. A replay knows what it
    sent, and how much of that was cached. So what it had sent before and was not cached counts as
    evicted, up to a block as `below_block_size`; the time lost is not known.

    Raises:
        TraceError: The file cannot be read, another line is neither, or a replayed turn has no
            cached tokens.
    """
    file = TraceFile(str(path), path)
    lines = msgspec.json.Decoder(_Line)
    records = msgspec.json.Decoder(MissRecord)
    replayed = msgspec.json.Decoder(_Replayed)
    numbers: dict[tuple[str, str], int] = {}
    damaged: TraceError | None = None
    for number, line in file.lines():
        if damaged is not None:
            raise damaged
        try:
            event = lines.decode(line).event
            if event == "missed":
                yield records.decode(line)
            elif not event:
                turn = replayed.decode(line)
                if turn.error_kind is None:
                    yield _inferred(file, number, turn, numbers)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            damaged = file.error(str(error), line=number, hint=_HINT)
            if line.endswith(b"\n"):
                raise damaged from error


def _inferred(
    file: TraceFile, line: int, turn: _Replayed, numbers: dict[tuple[str, str], int]
) -> MissRecord:
    """What a replayed turn missed, by elimination. Mutates `numbers`."""
    cached, prompt_tokens = turn.cached_tokens, turn.prompt_tokens
    if cached is None:
        raise file.error(
            "is unknown",
            line=line,
            field="cached_tokens",
            hint="replay to an endpoint that reports them: holdfast serve, or vllm serve "
            "--enable-prompt-tokens-details",
        )
    lost = max(prompt_tokens - turn.first_seen_tokens - cached, 0)
    reason = "evicted" if lost > _LARGEST_BLOCK_TOKENS else "below_block_size"
    missed = {reason: lost, "never_seen": max(prompt_tokens - cached - lost, 0)}
    key = turn.policy, turn.session_id
    return MissRecord(
        turn.last_token_s or turn.sent_s,
        session=numbers.setdefault(key, len(numbers)),
        turn=turn.turn_index + 1,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached,
        missed={name: tokens for name, tokens in missed.items() if tokens},
        session_id="/".join(part for part in key if part),
    )
