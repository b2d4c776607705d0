"""Sessions from the model calls of recorded conversations.

Shared by the readers of formats with text: they find the calls and each call's history; this
module computes lengths, blocks, gaps, events and the order of sessions.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from typing import Final

from holdfast.tool_calls.shell_command import argument_class, argument_clues
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.answer import decisive_tool, ended_by
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.history import (
    BLOCK_TOKENS,
    EMPTY_HISTORY,
    History,
    Message,
    Placement,
    PromptLayout,
    estimated_tokens,
)
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import parents_first
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
    common_prefix_length,
)

__all__ = [
    "Call",
    "CalledTool",
    "RecordedEvent",
    "Stream",
    "drop_copied_calls",
    "seconds",
    "transcript_reading",
]

# Content hashes are comparable between all files of a reading, but with no recorded hashes.
_CONTENT_SCOPE: Final = 1 << 32


def seconds(time: datetime | None) -> float | None:
    """Return unix seconds; a time without a zone counts as UTC. Pure."""
    if time is None:
        return None
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


@dataclass(slots=True)
class CalledTool:
    """A tool call of an answer, without its arguments.

    Attributes:
        name, command, is_error, is_background: As in `ToolSpan`.
        session_id: The session that it started, in the same reading or not.
        start_s: Its start in unix seconds; None if not recorded.
        end_s: The arrival of its result, on the same clock.
    """

    name: str
    command: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    is_error: bool | None = None
    is_background: bool = False
    session_id: str | None = None

    @classmethod
    def of(cls, call: ToolCall, start_s: float | None = None) -> CalledTool:
        """Reduce a call to its name and command; pure."""
        command, is_background = argument_class(call) or None, argument_clues(call).background
        return cls(call.name, command, start_s, is_background=is_background)

    def span(self, answer_s: float | None, known: Container[str]) -> ToolSpan:
        """Return the call timed from the end of its answer; an earlier start counts as 0.

        Args:
            answer_s: The end of the answer; None if not recorded.
            known: Ids of the sessions of the reading.
        """
        start_s = end_s = None
        if answer_s is not None and self.start_s is not None:
            start_s = max(0.0, self.start_s - answer_s)
            if self.end_s is not None:
                end_s = max(start_s, self.end_s - answer_s)
        return ToolSpan(
            self.name,
            self.command,
            start_s,
            end_s,
            is_error=self.is_error,
            is_background=self.is_background,
            session_id=self.session_id if self.session_id in known else None,
        )


@dataclass(slots=True)
class Call:
    """One recorded request to a model and its answer.

    Attributes:
        prompt: The messages of the prompt.
        head, is_whole: See `PromptLayout.place`.
        model: The requested model; "" if unknown.
        start_s: Time of the request in unix seconds; None if not recorded.
        end_s: Time of the complete answer, on the same clock.
        prompt_tokens: Length of the whole prompt, cached tokens included; None or 0 if not
            recorded.
        cached_tokens: Tokens that the provider read from its cache; None if not recorded.
        output_tokens: Length of the answer; None if not recorded.
        answer: The messages of the answer.
        trigger: As in `Turn`.
        stop: The recorded reason for the answer's end, in the provider's words.
        tools: The answer's tool calls, in order.
    """

    prompt: History = EMPTY_HISTORY
    head: str = ""
    is_whole: bool = False
    model: str = ""
    start_s: float | None = None
    end_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    answer: list[Message] = field(default_factory=list)
    trigger: Trigger = "user"
    stop: str | None = None
    tools: list[CalledTool] = field(default_factory=list)

    @property
    def answer_bytes(self) -> int:
        """Length of the answer's text."""
        return sum(message.num_bytes for message in self.answer)

    @property
    def ended_by(self) -> EndedBy:
        """The turn end."""
        return ended_by(has_tools=bool(self.tools), stop=self.stop)

    @property
    def latency_s(self) -> float | None:
        """Time from the request to the end of the answer; None unless above 0."""
        if self.start_s is None or self.end_s is None or self.end_s <= self.start_s:
            return None
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A recorded session event.

    Attributes:
        kind: As in `SessionEvent`.
        turn_index: Number of calls before it.
        time_s: Its time, on the clock of the calls; None if not recorded.
    """

    kind: EventKind
    turn_index: int
    time_s: float | None = None


@dataclass(slots=True)
class Stream:
    """One agent's calls, in order.

    Attributes:
        session_id, agent: As in `Session`.
        calls: Answered calls.
        parent_id, parent_turn, join_turn: As in `Session`, in the same reading or not.
        events: In the order of the calls; repeated records count once.
        origin_id: The session that it was forked from; None for no fork.
        copied: The origin's calls that the recording begins with; no turns of this session.
        num_estimated_gaps: Gaps that are recorded only as part of a longer time.
    """

    session_id: str
    agent: str
    calls: list[Call] = field(default_factory=list)
    parent_id: str | None = None
    parent_turn: int | None = None
    join_turn: int | None = None
    events: list[RecordedEvent] = field(default_factory=list)
    origin_id: str | None = None
    copied: list[Call] = field(default_factory=list)
    num_estimated_gaps: int = 0


def drop_copied_calls(stream: Stream, origin: Stream) -> None:
    """Move a fork's leading calls that repeat its origin's answers to `copied`."""
    known = {message.digest for call in (*origin.copied, *origin.calls) for message in call.answer}
    copied = list(
        takewhile(
            lambda call: all(message.digest in known for message in call.answer), stream.calls
        )
    )
    if not copied:
        return
    num_copied = len(copied)
    stream.copied, stream.calls = copied, stream.calls[num_copied:]
    own = (
        replace(event, turn_index=event.turn_index - num_copied)
        for event in stream.events
        if event.turn_index >= num_copied
    )
    stream.events = [RecordedEvent("fork", 0), *own]


def transcript_reading(
    file: TraceFile,
    families: Sequence[Sequence[Stream]],
    *,
    interner: PrefixInterner,
    rng: random.Random | None = None,
) -> Reading:
    """Return one file's reading; iterating its sessions adds prefixes to `interner`.

    Args:
        file: The file.
        families: Each main agent's stream, followed by its sub-agents'. Streams without a call are
            dropped and counted as unanswered; a file without a stream counts as one.
        interner: Shared by all files that are read together.
        rng: Shuffles the families; None keeps their order.

    Raises:
        TraceError: Two streams have one id, and `file.on_skipped` is None.
    """
    order = list(families)
    if rng is not None:
        rng.shuffle(order)
    found = [
        stream
        for family in order
        for stream in parents_first(family, lambda one: one.session_id, lambda one: one.parent_id)
    ]
    streams: dict[str, Stream] = {}
    for stream in found:
        if stream.session_id in streams:
            file.refuse(file.error("holds two sessions with one id"))
        elif stream.calls:
            streams[stream.session_id] = stream
    calls = [call for stream in streams.values() for call in stream.calls]
    names = {stream.session_id for stream in found}
    return Reading(
        num_sessions=len(streams),
        num_estimated_gaps=sum(map(_num_estimated_gaps, streams.values())),
        sessions=_sessions(file, streams, interner),
        num_estimated_lengths=sum(
            (not call.prompt_tokens) + (call.output_tokens is None) for call in calls
        ),
        num_unanswered=sum(not stream.calls for stream in found) if found else 1,
        num_orphans=sum(
            any(name not in names for name in (stream.parent_id, stream.origin_id) if name)
            for stream in streams.values()
        ),
    )


def _num_estimated_gaps(stream: Stream) -> int:
    unknown = sum(_gap_s(before, call) is None for before, call in pairwise(stream.calls))
    return stream.num_estimated_gaps + unknown


def _sessions(
    file: TraceFile, streams: Mapping[str, Stream], interner: PrefixInterner
) -> Iterator[Session]:
    for stream in streams.values():
        parent = streams.get(stream.parent_id or "")
        join_turn = stream.join_turn
        if parent is None or join_turn is None or join_turn >= len(parent.calls):
            join_turn = None
        yield Session(
            stream.session_id,
            BLOCK_TOKENS,
            tuple(_turns(stream, streams, interner, keeps_text=file.keeps_text)),
            file.source,
            parent_id=None if parent is None else parent.session_id,
            parent_turn=None if parent is None else stream.parent_turn,
            agent=stream.agent,
            join_turn=join_turn,
            events=tuple(_events(stream)),
        )


def _events(stream: Stream) -> Iterator[SessionEvent]:
    times_s: dict[tuple[EventKind, int], float | None] = {}
    for event in stream.events:
        times_s.setdefault((event.kind, event.turn_index), event.time_s)
    for (kind, turn_index), time_s in times_s.items():
        before = stream.calls[turn_index - 1] if turn_index else Call()
        after_s = None
        if time_s is not None and before.end_s is not None:
            after_s = max(0.0, time_s - before.end_s)
        yield SessionEvent(kind, turn_index, after_s)


def _turns(
    stream: Stream, known: Mapping[str, Stream], interner: PrefixInterner, *, keeps_text: bool
) -> Iterator[Turn]:
    layout = PromptLayout(stream.session_id, _first_origin_id(stream, known))
    trail = interner.trail(_CONTENT_SCOPE)
    for call in stream.copied:
        _placed(layout, call)
    before: Call | None = None
    previous: list[Message] = []
    for call in stream.calls:
        placement = _placed(layout, call)
        output_tokens = call.output_tokens
        tools = tuple(tool.span(call.end_s, known) for tool in call.tools)
        tool_name, tool_command = decisive_tool(tools)
        yield Turn(
            gap_s=0.0 if before is None else _gap_s(before, call) or 0.0,
            prompt_tokens=placement.num_tokens,
            output_tokens=(
                estimated_tokens(call.answer_bytes) if output_tokens is None else output_tokens
            ),
            block_ids=trail.extend(placement.block_hashes),
            trigger=call.trigger,
            ended_by=call.ended_by,
            tool_name=tool_name,
            tool_command=tool_command,
            model=call.model,
            latency_s=call.latency_s,
            cached_tokens=call.cached_tokens,
            tools=tools,
            text=_text(previous, call) if keeps_text else None,
        )
        before = call


def _first_origin_id(stream: Stream, known: Mapping[str, Stream]) -> str | None:
    """Return the first origin of a fork, through forks of forks; None for no fork."""
    origins: dict[str, None] = {}
    origin_id = stream.origin_id
    while origin_id is not None and origin_id not in origins:
        origins[origin_id] = None
        origin_id = known[origin_id].origin_id if origin_id in known else None
    return next(reversed(origins), None)


def _placed(layout: PromptLayout, call: Call) -> Placement:
    return layout.place(
        call.prompt,
        head=call.head,
        is_whole=call.is_whole,
        prompt_tokens=call.prompt_tokens or None,
        cached_tokens=call.cached_tokens or 0,
    )


def _text(previous: list[Message], call: Call) -> TurnText | None:
    """Return the text that a call adds to the previous one; None if not recorded.

    Replaces `previous`, the messages of the previous call, by those of this one.
    """
    prompt = call.prompt.messages()
    num_repeated = common_prefix_length(
        [message.digest for message in previous], [message.digest for message in prompt]
    )
    new, answer = _texts(prompt[num_repeated:]), _texts(call.answer)
    if new is None or answer is None:
        previous.clear()
        return None
    previous[:] = [*prompt, *call.answer]
    return TurnText(num_repeated, new, answer)


def _texts(messages: Sequence[Message]) -> tuple[MessageText, ...] | None:
    texts = tuple(message.text for message in messages if message.text is not None)
    return texts if len(texts) == len(messages) else None


def _gap_s(before: Call, call: Call) -> float | None:
    """Time from an answer's end to the next request; None if either is not recorded."""
    if before.end_s is None or call.start_s is None:
        return None
    return max(0.0, call.start_s - before.end_s)
