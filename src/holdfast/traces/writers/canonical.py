"""Writer of Holdfast's own trace format, which loses only the ids of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import msgspec

import holdfast
from holdfast.errors import ConfigError
from holdfast.traces.formats.canonical import (
    SCHEMA,
    End,
    EventRow,
    Header,
    MessageRow,
    SessionRow,
    TextRow,
    ToolRow,
    TurnRow,
)
from holdfast.traces.record import (
    MessageText,
    Session,
    ToolSpan,
    Turn,
    TurnText,
    common_prefix_length,
)
from holdfast.traces.writers.losses import Losses

__all__ = ["write_canonical"]

# Forks rarely go further back (99 % within 26 turns in recorded sessions).
_LOOK_BACK_TURNS = 32


def write_canonical(
    sessions: Iterable[Session], file: IO[bytes], *, block_size_tokens: int | None = None
) -> Losses:
    """Write sessions one at a time.

    Args:
        sessions: Of one reading, so that their block ids are comparable.
        file: Takes the lines; mutated.
        block_size_tokens: Must be None: each session keeps its block size.

    Returns:
        No losses.

    Raises:
        ConfigError: `block_size_tokens` is not None.
    """
    if block_size_tokens is not None:
        raise ConfigError("Holdfast's own files keep the block size of each session")
    encoder = msgspec.json.Encoder()

    def write(row: msgspec.Struct) -> None:
        file.write(encoder.encode(row) + b"\n")

    write(Header(SCHEMA, f"holdfast {holdfast.__version__}"))
    num_sessions = num_turns = 0
    for session in sessions:
        num_sessions += 1
        num_turns += len(session.turns)
        write(_session_row(session))
    write(End(num_sessions=num_sessions, num_turns=num_turns))
    return Losses()


def _session_row(session: Session) -> SessionRow:
    return SessionRow(
        session=session.session_id,
        block_size_tokens=session.block_size_tokens,
        turns=[_turn_row(session, index) for index in range(len(session.turns))],
        start_s=session.start_s,
        parent=session.parent_id,
        parent_turn=session.parent_turn,
        join_turn=session.join_turn,
        agent=session.agent,
        events=[
            EventRow(kind=event.kind, turn=event.turn_index, after_s=event.after_s)
            for event in session.events
        ],
        graph=session.graph,
    )


def _turn_row(session: Session, index: int) -> TurnRow:
    turn = session.turns[index]
    from_turn, num_kept = _longest_shared(session.turns, index)
    return TurnRow(
        gap_s=turn.gap_s,
        prompt_tokens=turn.prompt_tokens,
        output_tokens=turn.output_tokens,
        shared_tokens=num_kept * session.block_size_tokens,
        from_turn=None if from_turn == index - 1 else from_turn,
        new_blocks=list(_id_ranges(turn.block_ids[num_kept:])),
        trigger=turn.trigger,
        ended_by=turn.ended_by,
        tool_name=turn.tool_name,
        tool_command=turn.tool_command,
        agent=turn.agent,
        model=turn.model,
        latency_s=turn.latency_s,
        cached_tokens=turn.cached_tokens,
        tools=[_tool_row(tool) for tool in turn.tools],
        text=None if turn.text is None else _text_row(turn.text),
    )


def _text_row(text: TurnText) -> TextRow:
    return TextRow(
        repeated=text.num_repeated,
        prompt=_message_rows(text.prompt),
        answer=_message_rows(text.answer),
    )


def _message_rows(messages: Sequence[MessageText]) -> list[MessageRow]:
    return [MessageRow(role=message.role, content=message.content) for message in messages]


def _longest_shared(turns: Sequence[Turn], index: int) -> tuple[int, int]:
    """Return the earlier turn that shares the most blocks, and their number.

    Of equal turns the latest.
    """
    best, num_best = index - 1, 0
    block_ids = turns[index].block_ids
    for earlier in range(index - 1, max(-1, index - 1 - _LOOK_BACK_TURNS), -1):
        num_shared = common_prefix_length(block_ids, turns[earlier].block_ids)
        if num_shared > num_best:
            best, num_best = earlier, num_shared
        if num_best == len(block_ids):
            break
    return best, num_best


def _id_ranges(block_ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges of consecutive ids as first id and count."""
    first = last = None
    for block_id in block_ids:
        if first is None or last is None:
            first = block_id
        elif block_id != last + 1:
            yield first, last + 1 - first
            first = block_id
        last = block_id
    if first is not None and last is not None:
        yield first, last + 1 - first


def _tool_row(tool: ToolSpan) -> ToolRow:
    return ToolRow(
        name=tool.name,
        command=tool.command,
        start_s=tool.start_s,
        end_s=tool.end_s,
        is_error=tool.is_error,
        is_background=tool.is_background,
        session=tool.session_id,
    )
