"""Holdfast's own trace format, `holdfast.trace/1`: one whole `Session` a line.

The first line has the schema, the last one the counts of sessions and turns, which reveal a
truncated file. See docs/trace-format.md.

Block ids identify prefixes in the whole file, so a session is read without the ones before it, in
memory that does not depend on the length of the file.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import reordered
from holdfast.traces.record import (
    EndedBy,
    EventKind,
    MessageText,
    Session,
    SessionEvent,
    ToolSpan,
    Trigger,
    Turn,
    TurnText,
)

__all__ = [
    "LAYOUTS",
    "SCHEMA",
    "End",
    "EventRow",
    "Header",
    "MessageRow",
    "SessionRow",
    "TextRow",
    "ToolRow",
    "TurnRow",
    "read_canonical",
]

SCHEMA: Final = "holdfast.trace/1"

LAYOUTS = (frozenset({"record=trace", "schema"}),)
"""A first line with all of these fields is of this format."""

_HINT = "docs/trace-format.md has every line and field"
_BlockId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
_IdRange: TypeAlias = tuple[_BlockId, PromptTokens]


class Header(msgspec.Struct, tag_field="record", tag="trace"):
    """The first line.

    Attributes:
        schema: `SCHEMA`.
        writer: The program that wrote the file.
        prefixes: "blocks" if turns list the ids of their new blocks; "lengths" if they record only
            how many tokens they share, and new blocks are not shared.
    """

    schema: str
    writer: str = ""
    prefixes: Literal["blocks", "lengths"] = "blocks"


class _Row(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Base of rows; rejects unknown fields, so that a misspelt one is an error."""


class ToolRow(_Row, kw_only=True):
    """A `ToolSpan`."""

    name: str
    command: str | None = None
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    is_error: bool | None = None
    is_background: bool = False
    session: str | None = None


class EventRow(_Row, kw_only=True):
    """A `SessionEvent`."""

    kind: EventKind
    turn: Count
    after_s: Seconds | None = None


class MessageRow(_Row, kw_only=True):
    """A `MessageText`."""

    role: str = ""
    content: str = ""


class TextRow(_Row, kw_only=True):
    """A `TurnText`."""

    repeated: Count = 0
    prompt: list[MessageRow] = []
    answer: list[MessageRow] = []


class TurnRow(_Row, kw_only=True):
    """A `Turn`; its prompt begins with `shared_tokens` of an earlier prompt.

    Attributes:
        from_turn: That earlier turn; None for the previous one.
        new_blocks: The full blocks after the shared ones, as ranges of ids: first id and count.
    """

    gap_s: Seconds = 0.0
    prompt_tokens: Tokens
    output_tokens: Tokens = 0
    shared_tokens: Tokens = 0
    from_turn: Count | None = None
    new_blocks: list[_IdRange] = []
    trigger: Trigger = "user"
    ended_by: EndedBy = "unknown"
    tool_name: str | None = None
    tool_command: str | None = None
    agent: str = ""
    model: str = ""
    latency_s: Seconds | None = None
    cached_tokens: Tokens | None = None
    tools: list[ToolRow] = []
    text: TextRow | None = None


class SessionRow(_Row, tag_field="record", tag="session", kw_only=True):
    """A `Session`: one agent's stream of turns."""

    session: str
    block_size_tokens: PromptTokens
    turns: Annotated[list[TurnRow], msgspec.Meta(min_length=1)]
    start_s: Seconds | None = None
    parent: str | None = None
    parent_turn: Count | None = None
    join_turn: Count | None = None
    agent: str = ""
    events: list[EventRow] = []
    graph: WorkflowGraph | None = None


class End(_Row, tag_field="record", tag="end"):
    """The last line."""

    num_sessions: Count
    num_turns: Count


_AnyRow: TypeAlias = Header | SessionRow | End
_ROWS: Any = _AnyRow


def read_canonical(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file as a stream; iterating it reserves its block ids in `interner`.

    Args:
        file: The file; its text is dropped unless `file.keeps_text`.
        interner: Shared by all files that are read together.
        scope: Ignored: the format's block ids are comparable within one file only.
        rng: Shuffles as `reordered` does, which holds all sessions in memory; None keeps the order
            of the file and holds one.

    Raises:
        TraceError: From `Reading.sessions`: another schema, a line that is not a session, or a
            missing last line.
    """
    del scope
    return Reading(None, 0, reordered(_sessions(file, interner), rng))


def _sessions(file: TraceFile, interner: PrefixInterner) -> Iterator[Session]:
    rows: Iterator[tuple[int, _AnyRow]] = file.decode(_ROWS, hint=_HINT)
    blocks = _Blocks(_header(file, rows), interner)
    num_sessions = num_turns = 0
    end: End | None = None
    for line, row in rows:
        if end is not None or isinstance(row, Header):
            raise file.error("a line after the end", line=line, field="record", hint=_HINT)
        if isinstance(row, End):
            end = row
            continue
        num_sessions += 1
        num_turns += len(row.turns)
        try:
            session = _session(row, file, blocks)
        except _MisfitError as misfit:
            file.refuse(file.error(misfit.message, line=line, field=misfit.field))
        else:
            yield session
    _check_end(file, end, num_sessions, num_turns)


def _header(file: TraceFile, rows: Iterator[tuple[int, _AnyRow]]) -> Header:
    line, header = next(rows, (1, None))
    if not isinstance(header, Header):
        raise file.error("does not begin with the schema", line=line, field="schema", hint=_HINT)
    if header.schema != SCHEMA:
        raise file.error(
            f"schema {header.schema!r}; expected {SCHEMA!r}", line=line, field="schema"
        )
    return header


def _check_end(file: TraceFile, end: End | None, num_sessions: int, num_turns: int) -> None:
    if end is None:
        file.refuse(
            TraceError(
                f"cut off after {num_sessions} sessions; expected a last line that counts them",
                source=file.source,
                where="end",
                hint="write or fetch the file again",
            )
        )
    elif file.on_skipped is None and (end.num_sessions, end.num_turns) != (num_sessions, num_turns):
        raise TraceError(
            f"holds {num_sessions} sessions and {num_turns} turns; expected {end.num_sessions} and "
            f"{end.num_turns}, as its last line says",
            source=file.source,
            where="end",
        )


class _MisfitError(Exception):
    """Fields of one session that contradict each other."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class _Blocks:
    """Maps one file's block ids to ids of the whole reading."""

    def __init__(self, header: Header, interner: PrefixInterner) -> None:
        self._is_listed = header.prefixes == "blocks"
        self._interner = interner
        self._base = interner.next_id

    def of(self, row: SessionRow) -> list[tuple[int, ...]]:
        """Return the block ids of each prompt; reserves them in the interner."""
        prompts: list[tuple[int, ...]] = []
        for index, turn in enumerate(row.turns):
            kept = self._kept(row, index, prompts)
            num_free = max(1, turn.prompt_tokens // row.block_size_tokens) - len(kept)
            if sum(count for _, count in turn.new_blocks) > num_free:
                raise _MisfitError(
                    f"more blocks than fit in a prompt of {turn.prompt_tokens} tokens; expected "
                    f"at most {num_free} after the {len(kept)} shared ones",
                    f"turns[{index}].new_blocks",
                )
            if self._is_listed:
                new = [
                    self._base + n
                    for first, num in turn.new_blocks
                    for n in range(first, first + num)
                ]
            elif turn.new_blocks:
                raise _MisfitError(
                    'block ids in a file with prefixes "lengths"; expected none',
                    f"turns[{index}].new_blocks",
                )
            else:
                num_full = turn.prompt_tokens // row.block_size_tokens
                new = list(self._interner.fresh(num_full - len(kept)))
            self._interner.reserve_below(1 + max(new, default=-1))
            prompts.append((*kept, *new))
        return prompts

    @staticmethod
    def _kept(row: SessionRow, index: int, prompts: list[tuple[int, ...]]) -> tuple[int, ...]:
        turn = row.turns[index]
        from_turn = index - 1 if turn.from_turn is None else turn.from_turn
        if not turn.shared_tokens:
            return ()
        if not 0 <= from_turn < index:
            raise _MisfitError(
                f"shares tokens with turn {from_turn}; expected one before turn {index}",
                f"turns[{index}].from_turn",
            )
        longest = min(turn.prompt_tokens, row.turns[from_turn].prompt_tokens)
        # A prompt shorter than a block may list the block that it begins.
        if turn.shared_tokens > max(longest, row.block_size_tokens):
            raise _MisfitError(
                f"shares {turn.shared_tokens} tokens with turn {from_turn}; expected at most "
                f"{longest}, the shorter of the two prompts",
                f"turns[{index}].shared_tokens",
            )
        return prompts[from_turn][: turn.shared_tokens // row.block_size_tokens]


def _session(row: SessionRow, file: TraceFile, blocks: _Blocks) -> Session:
    for index, event in enumerate(row.events):
        if event.turn > len(row.turns):
            raise _MisfitError(
                f"before turn {event.turn}; expected at most {len(row.turns)}, the number of turns",
                f"events[{index}].turn",
            )
    texts = list(_texts(row))
    return Session(
        session_id=row.session,
        block_size_tokens=row.block_size_tokens,
        turns=tuple(
            _turn(turn, ids, texts[index] if file.keeps_text else None, f"turns[{index}]")
            for index, (turn, ids) in enumerate(zip(row.turns, blocks.of(row), strict=True))
        ),
        source=file.source,
        start_s=row.start_s,
        parent_id=row.parent,
        parent_turn=row.parent_turn,
        agent=row.agent,
        join_turn=row.join_turn,
        events=tuple(SessionEvent(e.kind, e.turn, e.after_s) for e in row.events),
        graph=row.graph,
    )


def _texts(row: SessionRow) -> Iterator[TurnText | None]:
    """Yield each turn's text; checks the messages that it repeats."""
    num_messages = 0
    for index, turn in enumerate(row.turns):
        text = turn.text
        if text is None:
            num_messages = 0
            yield None
            continue
        if text.repeated > num_messages:
            raise _MisfitError(
                f"repeats {text.repeated} messages; expected at most {num_messages}, those of the "
                "turn before",
                f"turns[{index}].text.repeated",
            )
        num_messages = text.repeated + len(text.prompt) + len(text.answer)
        yield TurnText(text.repeated, _messages(text.prompt), _messages(text.answer))


def _messages(rows: list[MessageRow]) -> tuple[MessageText, ...]:
    return tuple(MessageText(row.role, row.content) for row in rows)


def _turn(row: TurnRow, block_ids: tuple[int, ...], text: TurnText | None, field: str) -> Turn:
    return Turn(
        gap_s=row.gap_s,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        block_ids=block_ids,
        trigger=row.trigger,
        ended_by=row.ended_by,
        tool_name=row.tool_name,
        tool_command=row.tool_command,
        agent=row.agent,
        model=row.model,
        latency_s=row.latency_s,
        cached_tokens=row.cached_tokens,
        tools=tuple(_tool(tool, f"{field}.tools[{index}]") for index, tool in enumerate(row.tools)),
        text=text,
    )


def _tool(row: ToolRow, field: str) -> ToolSpan:
    if row.start_s is not None and row.end_s is not None and row.end_s < row.start_s:
        raise _MisfitError(
            f"ends at {row.end_s} s, before its start; expected at least {row.start_s}",
            f"{field}.end_s",
        )
    return ToolSpan(
        name=row.name,
        command=row.command,
        start_s=row.start_s,
        end_s=row.end_s,
        is_error=row.is_error,
        is_background=row.is_background,
        session_id=row.session,
    )
