"""Reader of WEKA's Claude Code traces (kv-cache-tester, AgentX corpus).

A file has one session, or one session a line. A call recorded twice, once streaming and once not,
is one turn. Gaps of a file with the known gap defect are corrected (`traces.gaps`). Sub-agents are
sessions of their own; the parent's gap includes their time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.decoding import ErrorMaker
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.gaps import Gap, GapEvidence
from holdfast.traces.lineage import PrefixInterner, PrefixTrail
from holdfast.traces.order import reordered
from holdfast.traces.record import EndedBy, Session, Trigger, Turn

__all__ = ["GLOBAL_SCOPE", "LAYOUTS", "read_weka", "read_weka_lines"]

GLOBAL_SCOPE = 0
"""The interner's scope of files with global hash ids."""

LAYOUTS = (frozenset({"id", "block_size", "requests"}),)
"""An object with all of these fields is of this format."""

_HINT = "expected one WEKA session: {id, block_size, requests: [{t, type, in, out, …}]}"
_ENDINGS: dict[str, EndedBy] = {
    "tool_use": "tool",
    "end_turn": "human",
    "stop_sequence": "human",
}


class _Call(msgspec.Struct, tag_field="type", tag="s"):
    t: Seconds
    prompt_tokens: Tokens = msgspec.field(name="in")
    output_tokens: Tokens = msgspec.field(name="out")
    hash_ids: list[Count]
    model: str | None = None
    stop: str | None = ""
    api_time: Seconds | None = None
    think_time: Seconds | None = None
    trigger: Literal["user", "tool_result"] | None = None
    input_types: list[str] = []


class _PlainCall(_Call, tag="n"):
    """A call without streaming."""


class _Subagent(msgspec.Struct, tag_field="type", tag="subagent"):
    agent_id: str
    requests: list[_PlainCall | _Call | _Subagent]
    subagent_type: str | None = None


class _File(msgspec.Struct):
    id: str
    block_size: PromptTokens
    requests: list[_PlainCall | _Call | _Subagent]
    hash_id_scope: Literal["local", "global"] = "local"


@dataclass(slots=True)
class _Merged:
    """One turn's call, merged with its duplicate."""

    first: _Call
    answer: _Call

    @property
    def end_s(self) -> float:
        return self.answer.t + (self.answer.api_time or 0.0)


@dataclass(slots=True)
class _Agent:
    """One agent's calls, and its parent."""

    session_id: str
    name: str
    calls: list[_Merged]
    parent_id: str | None = None
    parent_turn: int | None = None

    @property
    def num_estimated_gaps(self) -> int:
        return sum(call.first.think_time is None for call in self.calls[1:])

    def evidence(self) -> GapEvidence:
        neighbours = list(pairwise(self.calls))
        gaps = [_gap(before, after) for before, after in neighbours]
        return GapEvidence.from_gaps(
            (gap for gap in gaps if gap is not None),
            num_pairs=sum(call.first is not call.answer for call in self.calls),
            num_unclear_gaps=sum(
                gap is None and bool(after.first.think_time)
                for gap, (_, after) in zip(gaps, neighbours, strict=True)
            ),
        )


def read_weka(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: UTF-8 JSON.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0), used if its ids are not global.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: The file is not such a session; names the request's index and the field.
    """
    del rng
    document = file.document(_File, hint=_HINT)
    agents = _agents(document, file.error_maker())
    if not agents:
        raise TraceError("holds no request", source=file.source, where="requests")
    evidence = _evidence(agents)
    has_defect = evidence.known_gap_defect
    return Reading(
        len(agents),
        sum(agent.num_estimated_gaps for agent in agents),
        _sessions(file.source, document, agents, interner, scope, has_defect=has_defect),
        evidence,
    )


def read_weka_lines(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read a file of one session a line in two passes; the first one checks it.

    Args:
        file: UTF-8 JSON, one session a line.
        interner: Shared by all files that are read together.
        scope: Ignored: ids that are not global are comparable within a line only.
        rng: Shuffles the sessions; sub-agents follow their main agent. None keeps their order.

    Raises:
        TraceError: A line is not such a session, or there is none.
    """
    del scope
    num_sessions = num_estimated_gaps = 0
    evidence = GapEvidence()
    for _, agents in _lines(file):
        num_sessions += len(agents)
        num_estimated_gaps += sum(agent.num_estimated_gaps for agent in agents)
        evidence += _evidence(agents)
    if not num_sessions:
        raise TraceError("holds no request", source=file.source, hint=_HINT)
    has_defect = evidence.known_gap_defect
    sessions = (
        session
        for document, agents in _lines(file.without_reports())
        for session in _sessions(
            file.source, document, agents, interner, interner.own_scope(), has_defect=has_defect
        )
    )
    return Reading(num_sessions, num_estimated_gaps, reordered(sessions, rng), evidence)


def _lines(file: TraceFile) -> Iterator[tuple[_File, list[_Agent]]]:
    for line, document in file.decode(_File, hint=_HINT):
        try:
            agents = _agents(document, file.error_maker(line))
        except TraceError as error:
            file.refuse(error)
        else:
            yield document, agents


def _agents(document: _File, error: ErrorMaker) -> list[_Agent]:
    """Return the main agent, if it has a request, then its sub-agents."""
    agents: list[_Agent] = []
    main = _Agent(document.id, "main", [])
    _add_agent(agents, main, "requests", document, document.requests, error)
    return agents


def _add_agent(
    agents: list[_Agent],
    agent: _Agent,
    where: str,
    document: _File,
    requests: Iterable[_PlainCall | _Call | _Subagent],
    error: ErrorMaker,
) -> None:
    calls: list[_Call] = []
    children: list[tuple[_Subagent, str, int]] = []
    for index, request in enumerate(requests):
        if isinstance(request, _Call):
            _check_blocks(request, f"{where}[{index}]", document.block_size, error)
            calls.append(request)
        else:
            children.append((request, f"{where}[{index}].requests", len(calls)))
    agent.calls = _merge_pairs(calls)
    if calls:
        agents.append(agent)
    num_calls_of: dict[str, int] = {}
    for child, place, num_calls in children:
        number = num_calls_of[child.agent_id] = num_calls_of.get(child.agent_id, 0) + 1
        suffix = "" if number == 1 else f"#{number}"
        has_caller = num_calls > 0
        sub_agent = _Agent(
            f"{agent.session_id}/{child.agent_id}{suffix}",
            child.subagent_type or "",
            [],
            parent_id=agent.session_id if calls else None,
            parent_turn=len(_merge_pairs(calls[:num_calls])) - 1 if has_caller else None,
        )
        _add_agent(agents, sub_agent, place, document, child.requests, error)


def _sessions(
    source: str,
    document: _File,
    agents: Iterable[_Agent],
    interner: PrefixInterner,
    own_scope: int,
    *,
    has_defect: bool,
) -> Iterator[Session]:
    scope = GLOBAL_SCOPE if document.hash_id_scope == "global" else own_scope
    for agent in agents:
        yield Session(
            agent.session_id,
            document.block_size,
            _turns(agent.calls, interner.trail(scope), has_defect=has_defect),
            source,
            parent_id=agent.parent_id,
            parent_turn=agent.parent_turn,
            agent=agent.name,
        )


def _check_blocks(call: _Call, where: str, block_size_tokens: int, error: ErrorMaker) -> None:
    if len(call.hash_ids) * block_size_tokens > max(call.prompt_tokens, block_size_tokens):
        raise error(
            f"{len(call.hash_ids)} full blocks of {block_size_tokens} tokens do not fit in a "
            f"prompt of {call.prompt_tokens} tokens (`in`)",
            f"{where}.hash_ids",
            None,
        )


def _merge_pairs(calls: list[_Call]) -> list[_Merged]:
    merged: list[_Merged] = []
    for call in calls:
        last = merged[-1] if merged else None
        if last is not None and last.first is last.answer and _is_duplicate(last.first, call):
            # The agent continued from the answer with a stop, after both had ended.
            answer = call if call.stop or not last.first.stop else last.first
            last.answer = msgspec.structs.replace(answer, t=call.t, api_time=call.api_time)
        else:
            merged.append(_Merged(call, call))
    return merged


def _is_duplicate(call: _Call, other: _Call) -> bool:
    return (
        type(call) is not type(other)
        and call.prompt_tokens == other.prompt_tokens
        and call.hash_ids == other.hash_ids
    )


def _evidence(agents: Iterable[_Agent]) -> GapEvidence:
    return sum((agent.evidence() for agent in agents), GapEvidence())


def _gap(before: _Merged, after: _Merged) -> Gap | None:
    """Return a recorded gap; None if its latency or its time is not recorded."""
    latency_s, recorded_s = before.answer.api_time, after.first.think_time
    if latency_s is None or recorded_s is None:
        return None
    is_after_tool = _trigger(before.answer, after.first) != "user"
    return Gap(recorded_s, after.first.t - before.end_s, latency_s, is_after_tool)


def _gap_s(before: _Merged, after: _Merged, *, has_defect: bool) -> float:
    gap = _gap(before, after) if has_defect else None
    if gap is not None:
        return gap.corrected_s
    recorded_s = after.first.think_time
    return max(0.0, after.first.t - before.end_s) if recorded_s is None else recorded_s


def _turns(calls: list[_Merged], trail: PrefixTrail, *, has_defect: bool) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    previous: _Merged | None = None
    for call in calls:
        turns.append(
            Turn(
                gap_s=0.0 if previous is None else _gap_s(previous, call, has_defect=has_defect),
                prompt_tokens=call.first.prompt_tokens,
                output_tokens=call.answer.output_tokens,
                block_ids=trail.extend(call.first.hash_ids),
                trigger=_trigger(None if previous is None else previous.answer, call.first),
                ended_by=_ENDINGS.get(call.answer.stop or "", "unknown"),
                model=call.first.model or "",
                latency_s=_latency_s(call),
            )
        )
        previous = call
    return tuple(turns)


def _latency_s(call: _Merged) -> float | None:
    """Time to the end of both the answer and its duplicate; None if not recorded."""
    if call.answer.api_time is None or call.answer is call.first:
        return call.answer.api_time
    return max(0.0, call.end_s - call.first.t)


def _trigger(before: _Call | None, call: _Call) -> Trigger:
    if call.trigger is not None:
        return call.trigger
    if before is None:
        return "user"
    if call.input_types:
        return "tool_result" if "tool_result" in call.input_types else "user"
    return "tool_result" if before.stop == "tool_use" else "user"
