"""Reader of Claude Code's session files: one entry of a conversation a line.

Entries refer to their parent, so a file is a tree: a user who goes back starts a branch (a fork), a
compaction starts a new root, and a sub-agent a tree of its own, in this file or in one beside it. A
prompt is the path from the root to its answer. An answer has one line for each of its parts, and
parallel tool results are children of the part with their call; both are read as a sequence. A
sub-agent joins its parent at the first answer after the call's result.

Known: prompt lengths, tools, histories, the time of each part. A prompt's length is the sum of its
uncached, cache-written and cache-read tokens.

Assumed: system message and tools are not recorded; they fill the part of the first prompt that has
no text. Sessions of the same model, client version and agent type share them as far as the provider
read them from its cache. Only the last part of an answer has its length; without that part the
length is estimated from the text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast.errors import TraceError
from holdfast.traces.formats.claude_code_entries import (
    LAYOUTS,
    Entry,
    Launch,
    links_of,
    own_name,
    read_entries,
)
from holdfast.traces.formats.claude_code_files import agent_kind, companions_of, is_auxiliary
from holdfast.traces.formats.entry_order import parents_before
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    RecordedEvent,
    Stream,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message, estimated_tokens
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import EventKind, Trigger

__all__ = ["LAYOUTS", "companions_of", "is_auxiliary", "links_of", "read_claude_code"]

_MAIN = "main"


@dataclass(frozen=True, slots=True)
class _Node:
    """A point in a conversation, from which an entry's children continue.

    Attributes:
        stream: The agent's name in the tree.
        history: The messages so far.
        answer: Index of the latest answer.
        time_s, trigger: Of a request that follows here.
        compacted_at: The agent's number of answers when a compaction began the history; None
            without a compaction.
        is_torn: Whether the files lack earlier messages.
    """

    stream: str
    history: History = EMPTY_HISTORY
    answer: int | None = None
    time_s: float | None = None
    trigger: Trigger = "user"
    compacted_at: int | None = None
    is_torn: bool = False


@dataclass(slots=True)
class _Answer:
    """One call, completed as the parts of its answer are read."""

    call: Call
    head: tuple[str, ...]
    output_tokens: int = 0

    def add(self, entry: Entry) -> None:
        call, usage = self.call, entry.usage
        call.end_s = entry.time_s
        call.stop = entry.stop or call.stop
        call.answer += entry.messages
        call.tools += [tool for _, tool in entry.tools]
        if usage is not None:
            call.prompt_tokens = usage.prompt_tokens
            call.cached_tokens = usage.cache_read_input_tokens
            self.output_tokens = max(self.output_tokens, usage.output_tokens or 0)

    def finished(self, agent: str) -> Call:
        call = self.call
        call.head = " ".join((*self.head, agent))
        # Parts before the last have the count at the time of their writing.
        if call.stop is not None or self.output_tokens >= estimated_tokens(call.answer_bytes):
            call.output_tokens = self.output_tokens
        return call


@dataclass(slots=True)
class _Agent:
    """One agent's answers by index, its events and its first input."""

    session: str
    opening: Message | None = None
    answers: list[int] = field(default_factory=list)
    events: list[RecordedEvent] = field(default_factory=list)

    def note(self, kind: EventKind, time_s: float | None = None) -> None:
        self.events.append(RecordedEvent(kind, len(self.answers), time_s))


@dataclass(slots=True)
class _Start:
    """A call that starts a sub-agent, with its caller and its turns of start and join."""

    launch: Launch
    caller: str
    turn: int
    join_turn: int | None = None


class _Tree:
    """The conversations of one session, built entry by entry."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._agents: dict[str, _Agent] = {}
        self._answers: list[_Answer] = []
        self._positions: dict[tuple[str, str], int] = {}
        # The latest entry between each answer and the next.
        self._latest: dict[int, _Node] = {}
        self._tools: dict[str, CalledTool] = {}
        # Calls that start sub-agents, by call id; and each sub-agent's call ids: a second call
        # continues its conversation.
        self._starts: dict[str, _Start] = {}
        self._starts_of: dict[str, list[str]] = {}
        # Files of sub-agents that have their own.
        self._files: dict[str, Path] = {}

    def note_file(self, agent_id: str, path: Path) -> None:
        """Note the file of a sub-agent's entries."""
        self._files.setdefault(agent_id, path)

    def add(self, entry: Entry, session: str) -> None:
        """Add one entry; ignores a repeated one."""
        if entry.uuid in self._nodes:
            return
        parent = self._parent(entry, session)
        if entry.is_compaction:
            agent = self._agents[parent.stream]
            agent.note("compaction", entry.time_s)
            parent = replace(parent, compacted_at=len(agent.answers))
        if entry.is_answer:
            node = self._add_answer(entry, parent)
        elif entry.messages:
            node = self._add_input(entry, parent)
        else:
            node = parent
        self._nodes[entry.uuid] = node

    def _parent(self, entry: Entry, session: str) -> _Node:
        node = self._nodes.get(entry.parent_uuid)
        stream = _MAIN
        if entry.is_sidechain:
            is_inside = node is not None and node.stream != _MAIN
            stream = entry.agent_id or (node.stream if node and is_inside else entry.uuid)
        if stream not in self._agents:
            self._agents[stream] = _Agent(session)
        if node is None or node.stream != stream:
            return _Node(stream, is_torn=node is None and entry.parent_uuid != "")
        return node

    def _end(self, node: _Node) -> _Node:
        """Return the latest node before the answer that follows `node`."""
        return node if node.answer is None else self._latest[node.answer]

    def _add_input(self, entry: Entry, parent: _Node) -> _Node:
        # Only a human starts a branch; parallel calls' results are children of earlier parts.
        is_human = not (entry.is_automatic or entry.results)
        base = parent if is_human else self._end(parent)
        trigger: Trigger = "user" if is_human else base.trigger
        node = replace(
            base,
            history=base.history.then(*entry.messages),
            time_s=entry.time_s,
            trigger="tool_result" if entry.results else trigger,
        )
        if node.answer is not None:
            self._latest[node.answer] = node
        agent = self._agents[node.stream]
        agent.opening = agent.opening or entry.messages[0]
        self._add_results(entry)
        return node

    def _add_results(self, entry: Entry) -> None:
        for tool_id, is_error in entry.results.items():
            tool = self._tools.get(tool_id)
            if tool is not None:
                tool.end_s, tool.is_error = entry.time_s, is_error
            start = self._starts.get(tool_id)
            if start is not None:
                start.join_turn = len(self._agents[start.caller].answers)
        if entry.returned is not None:
            names, tool_id = entry.returned
            for name in names:
                self._starts_of.setdefault(name, []).append(tool_id)
            if entry.is_launched and tool_id in self._tools:
                self._tools[tool_id].is_background = True

    def _add_answer(self, entry: Entry, parent: _Node) -> _Node:
        base = self._end(parent)
        agent = self._agents[base.stream]
        key = (base.stream, entry.answer_id)
        position = self._positions.setdefault(key, len(self._answers))
        if position == len(self._answers):
            if _goes_back(base, agent):
                agent.note("fork")
            call = Call(
                prompt=base.history,
                model=entry.model,
                start_s=base.time_s,
                trigger=base.trigger,
            )
            self._answers.append(_Answer(call, ("claude-code", entry.version, entry.model)))
            agent.answers.append(position)
        self._answers[position].add(entry)
        self._tools.update(entry.tools)
        for launch in entry.launches:
            self._starts[launch.tool_id] = _Start(launch, base.stream, len(agent.answers) - 1)
        history = base.history.then(*entry.messages)
        node = self._latest[position] = _Node(base.stream, history, position, entry.time_s)
        return node

    def streams(self) -> list[Stream]:
        """Return the main agent's stream, then its sub-agents' by their start."""
        found = [self._stream(name, agent) for name, agent in self._agents.items()]
        found.sort(key=lambda stream: (stream.agent != _MAIN, _start_s(stream)))
        return found

    def _stream(self, name: str, agent: _Agent) -> Stream:
        if name == _MAIN:
            calls = self._calls(agent, _MAIN)
            return Stream(agent.session, _MAIN, calls, events=agent.events)
        stream = Stream(f"{agent.session}/{name}", "", parent_id=agent.session, events=agent.events)
        starts = self._starts_with(name, agent)
        if name in self._files:
            stream.agent = agent_kind(self._files[name])
        for start in starts[:1]:
            stream.agent, stream.parent_turn = start.launch.agent or stream.agent, start.turn
            stream.parent_id = self._agents[start.caller].session
            if start.caller != _MAIN:
                stream.parent_id = f"{stream.parent_id}/{start.caller}"
        for start in starts:
            tool = self._tools[start.launch.tool_id]
            tool.session_id = tool.session_id or stream.session_id
            stream.join_turn = None if tool.is_background else start.join_turn
        stream.calls = self._calls(agent, stream.agent)
        return stream

    def _starts_with(self, name: str, agent: _Agent) -> list[_Start]:
        """Return the calls that prompted a sub-agent, in order."""
        run = self._files[name].parent.name if name in self._files else ""
        ids = self._starts_of.get(name) or self._starts_of.get(run, [])
        known = [self._starts[tool_id] for tool_id in ids if tool_id in self._starts]
        if known:
            return known
        starts = self._starts.values()
        return [start for start in starts if start.launch.opening == agent.opening][:1]

    def _calls(self, agent: _Agent, kind: str) -> list[Call]:
        return [self._answers[position].finished(kind) for position in agent.answers]


def _goes_back(node: _Node, agent: _Agent) -> bool:
    """Whether a request after `node` is a fork: not after the latest answer."""
    if not agent.answers or node.is_torn:
        return False
    return node.answer != agent.answers[-1] and node.compacted_at != len(agent.answers)


def _start_s(stream: Stream) -> float:
    return stream.calls[0].start_s or 0.0 if stream.calls else 0.0


def read_claude_code(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The session's file. Sub-agents' files are its `children` and those in the directory
            of its name.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: A line is not such an entry or a file is damaged, and `file.on_skipped` is None.
    """
    del scope, rng
    tree = _Tree()
    beside = companions_of(file.content) if isinstance(file.content, Path) else ()
    beside = tuple(path for path in beside if path not in file.unreadable)
    companions = tuple(dict.fromkeys((*beside, *file.children)))
    entries: list[Entry] = []
    for part in (file, *map(file.sibling, companions)):
        try:
            for entry in read_entries(part):
                entries.append(entry)
                if entry.agent_id and part is not file:
                    tree.note_file(entry.agent_id, Path(part.source))
        except TraceError as error:
            part.refuse(error)
    own = own_name(file, [entry.session_id for entry in entries if entry.session_id])
    for entry in parents_before(entries):
        tree.add(entry, own or file.label)
    reading = transcript_reading(file, [tree.streams()], interner=interner)
    return replace(reading, companions=companions)
