"""Reader of coding agents' requests with tool names, and of their tool calls.

`requests.jsonl` has one request a line; `tools.jsonl` beside it, if present, one tool call a line.
The stream of one agent is a session; sub-agents are sessions with a parent and the parent's turn
that started them. The parent's gap includes their time.

Known: lengths, gaps, the tools called, and how many tokens a prompt shares with the agent's
previous one, also after compactions and forks. No hashes are recorded: block ids share exactly that
much.

Assumed: a first prompt shares its cached tokens with the first prompts of the same source, model
and agent type, up to the smaller of both cached lengths and the shortest of these prompts: system
message and tools. The provider's cache may have been cold, so this is less than an engine could
reuse. An answer without a tool call goes to a human, unless its stop differs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.shell_command import argument_class
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.answer import decisive_tool, ended_by
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import wrong_turn
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.prefix_lengths import PrefixLengths
from holdfast.traces.record import Session, ToolSpan, Turn
from holdfast.traces.storage import COMPRESSIONS

__all__ = [
    "LAYOUTS",
    "companions_of",
    "read_coding_agents",
    "read_with_companion",
]

LAYOUTS = (frozenset({"src", "session", "agent", "turn", "prompt_tokens", "prefix_tokens"}),)
"""A first line of requests with all of these fields is of this format."""

_BLOCK_TOKENS = 64
_MAIN = "main"
_HINT = (
    "expected one request a line: {src, session, agent, turn, t, latency_s, model, trigger, "
    "prompt_tokens, output_tokens, prefix_tokens, gap_s, stop, tools, tool_ids, spawned_by}"
)
_TOOLS_HINT = "expected one tool call a line: {src, session, id, name, command, background, …}"

_REQUESTS_NAMES = tuple(f"requests.jsonl{compression}" for compression in COMPRESSIONS)
_TOOLS_NAMES = tuple(f"tools.jsonl{compression}" for compression in COMPRESSIONS)
_Moment = Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]


class _Request(msgspec.Struct):
    src: str
    session: str
    agent: str
    turn: Count
    t: _Moment
    model: str
    trigger: str
    prompt_tokens: PromptTokens
    output_tokens: Tokens
    prefix_tokens: Tokens
    latency_s: Seconds | None = None
    gap_s: Seconds | None = None
    stop: str | None = None
    tools: list[str] = []
    tool_ids: list[str] = []
    spawned_by: str | None = None


class _ToolCall(msgspec.Struct):
    src: str
    session: str
    id: str
    name: str
    command: str | None = None
    background: bool | None = None
    subagent: str | None = None
    t: _Moment | None = None
    wall_s: Seconds | None = None
    error: bool | None = None


_ToolCalls = dict[tuple[str, str, str], _ToolCall]


@dataclass(slots=True)
class _Stream:
    """One agent's requests, in order."""

    session_id: str
    agent: str
    requests: list[_Request]
    parent_id: str | None = None
    parent_turn: int | None = None
    join_turn: int | None = None

    @property
    def group(self) -> tuple[str, str, str]:
        """Key of the agents that share a system message and tools."""
        return self.requests[0].src, self.requests[0].model, self.agent


def companions_of(path: Path) -> tuple[Path, ...]:
    """Return the tool-call files beside a file of requests; the first one is read."""
    if path.name not in _REQUESTS_NAMES:
        return ()
    return tuple(file for name in _TOOLS_NAMES if (file := path.with_name(name)).is_file())


def read_with_companion(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read requests, and the tool calls beside them, as `read_coding_agents` does."""
    beside = (path for path in companions_of(Path(file.source)) if path not in file.unreadable)
    companions = tuple(islice(beside, 1))
    tools = file.sibling(companions[0]) if companions else None
    reading = read_coding_agents(file, tools, interner=interner, scope=scope, rng=rng)
    return replace(reading, companions=companions)


def read_coding_agents(
    requests: TraceFile,
    tools: TraceFile | None,
    *,
    interner: PrefixInterner,
    scope: int,
    rng: random.Random | None = None,
) -> Reading:
    """Read a pair of files; iterating the sessions adds their blocks to `interner`.

    Args:
        requests: The file of requests.
        tools: The file of tool calls; without it commands and sub-agents' types are unknown.
        interner: Shared by all files that are read together.
        scope: Ignored: there are no hashes.
        rng: Shuffles the sessions; sub-agents follow their main agent. None keeps the order of the
            file.

    Raises:
        TraceError: A line is not such a request or call, an agent's requests are out of order or
            share more tokens than they have, or there is no request.
    """
    del scope
    calls: _ToolCalls = {}
    if tools is not None:
        decoded = tools.decode(_ToolCall, hint=_TOOLS_HINT)
        calls = {(call.src, call.session, call.id): call for _, call in decoded}
    families = list(_families(requests))
    for family in families:
        _name_parents(family, calls)
    if rng is not None:
        rng.shuffle(families)
    streams = [stream for family in families for stream in family]
    num_estimated_gaps = sum(
        request.gap_s is None for stream in streams for request in stream.requests[1:]
    )
    prefixes = PrefixLengths(interner, block_tokens=_BLOCK_TOKENS)
    for stream in streams:
        prefixes.note_first(stream.group, stream.requests[0].prompt_tokens)
    sessions = _sessions(requests.source, streams, calls, prefixes)
    return Reading(len(streams), num_estimated_gaps, sessions)


def _families(file: TraceFile) -> Iterator[list[_Stream]]:
    """Yield each session's streams: the main agent's, then sub-agents' by start."""
    families: dict[tuple[str, str], dict[str, _Stream]] = {}
    for line, request in file.decode(_Request, hint=_HINT):
        family = families.setdefault((request.src, request.session), {})
        stream = family.get(request.agent)
        if stream is None:
            name = f"{request.src}/{request.session}"
            is_main = request.agent == _MAIN
            stream = family[request.agent] = _Stream(
                name if is_main else f"{name}/{request.agent}",
                _MAIN if is_main else "",
                [],
            )
        problem = _problem(file, line, request, stream.requests)
        if problem is None:
            stream.requests.append(request)
        else:
            file.refuse(problem)
    families = {
        key: {agent: stream for agent, stream in family.items() if stream.requests}
        for key, family in families.items()
    }
    families = {key: family for key, family in families.items() if family}
    if not families:
        raise TraceError("holds no request", source=file.source, hint=_HINT)
    for family in families.values():
        yield sorted(
            family.values(), key=lambda stream: (stream.agent != _MAIN, stream.requests[0].t)
        )


def _problem(
    file: TraceFile, line: int, request: _Request, earlier: list[_Request]
) -> TraceError | None:
    name = f"turn {request.turn} of agent {request.agent!r}"
    problem = wrong_turn(file, line, "turn", name, request.turn, len(earlier))
    if problem is not None:
        return problem
    if len(request.tools) != len(request.tool_ids):
        return file.error(
            f"{len(request.tool_ids)} ids for {len(request.tools)} `tools`; expected as many",
            line=line,
            field="tool_ids",
        )
    longest = request.prompt_tokens
    if earlier:
        longest = min(longest, earlier[-1].prompt_tokens)
    if request.prefix_tokens > longest:
        return file.error(
            f"{request.prefix_tokens} tokens shared with the previous prompt; expected at most "
            f"{longest}, the shorter of the two prompts",
            line=line,
            field="prefix_tokens",
        )
    return None


def _name_parents(family: list[_Stream], calls: _ToolCalls) -> None:
    """Set each sub-agent's parent, its type and its turn of join."""
    calling_turns = {
        tool_id: (stream.session_id, request.turn)
        for stream in family
        for request in stream.requests
        for tool_id in request.tool_ids
    }
    num_turns = {stream.session_id: len(stream.requests) for stream in family}
    for stream in family:
        first = stream.requests[0]
        if first.spawned_by is None:
            continue
        call = calls.get((first.src, first.session, first.spawned_by))
        stream.agent = (call.subagent if call is not None else None) or stream.agent
        stream.parent_id, stream.parent_turn = calling_turns.get(first.spawned_by, (None, None))
        if stream.parent_turn is None or call is None or call.background:
            continue
        if stream.parent_turn + 1 < num_turns[stream.parent_id or ""]:
            stream.join_turn = stream.parent_turn + 1


def _sessions(
    source: str,
    streams: list[_Stream],
    calls: _ToolCalls,
    prefixes: PrefixLengths,
) -> Iterator[Session]:
    children = {
        (first.src, first.session, first.spawned_by): stream.session_id
        for stream in streams
        if (first := stream.requests[0]).spawned_by is not None
    }
    for stream in streams:
        lengths = ((request.prompt_tokens, request.prefix_tokens) for request in stream.requests)
        prompts = prefixes.of(stream.group, lengths)
        turns: list[Turn] = []
        before: _Request | None = None
        for request, block_ids in zip(stream.requests, prompts, strict=True):
            tools = tuple(_tool_spans(request, calls, children))
            name, command = decisive_tool(tools)
            turns.append(
                Turn(
                    gap_s=_gap_s(before, request),
                    prompt_tokens=request.prompt_tokens,
                    output_tokens=request.output_tokens,
                    block_ids=block_ids,
                    trigger="tool_result" if request.trigger == "tool_result" else "user",
                    ended_by=ended_by(has_tools=bool(tools), stop=request.stop),
                    tool_name=name,
                    tool_command=command,
                    model=request.model,
                    latency_s=request.latency_s,
                    tools=tools,
                )
            )
            before = request
        yield Session(
            stream.session_id,
            _BLOCK_TOKENS,
            tuple(turns),
            source,
            parent_id=stream.parent_id,
            parent_turn=stream.parent_turn,
            agent=stream.agent,
            join_turn=stream.join_turn,
        )


def _gap_s(before: _Request | None, request: _Request) -> float:
    if before is None:
        return 0.0
    if request.gap_s is not None:
        return request.gap_s
    return max(0.0, request.t - before.t - (before.latency_s or 0.0))


def _command(name: str, call: _ToolCall) -> str | None:
    arguments = {"command": call.command or "", "run_in_background": bool(call.background)}
    return argument_class(ToolCall(name, msgspec.json.encode(arguments).decode())) or None


def _tool_spans(
    request: _Request, calls: _ToolCalls, children: dict[tuple[str, str, str], str]
) -> Iterator[ToolSpan]:
    for name, tool_id in zip(request.tools, request.tool_ids, strict=True):
        key = (request.src, request.session, tool_id)
        call = calls.get(key)
        if call is None:
            yield ToolSpan(name, session_id=children.get(key))
            continue
        start_s = end_s = None
        if call.t is not None and request.latency_s is not None:
            start_s = max(0.0, call.t - request.t - request.latency_s)
            end_s = None if call.wall_s is None else start_s + call.wall_s
        yield ToolSpan(
            name=name,
            command=_command(name, call),
            start_s=start_s,
            end_s=end_s,
            is_error=call.error,
            is_background=bool(call.background),
            session_id=children.get(key),
        )
