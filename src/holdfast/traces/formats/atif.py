"""Reader of ATIF trajectories (version 1): one trajectory a document, sub-agents' inside or beside.

Known: steps in order, lengths of calls (a prompt's with what came from a cache), tools, which step
started which trajectory and had its result. A trajectory that goes on in another document is one
session; where that one begins with copied steps, they are what a compaction left.

Assumed: a step has one time, taken as the end of its answer. Time between two steps of the agent
therefore contains the later answer's, and such gaps are counted as estimated. A step that several
calls were merged into records the sum of their prompts, so its prompt's length is estimated.
"""

from __future__ import annotations

import os.path
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast.core.tool_syntax import ToolCall
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.reading import Kin, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    Happening,
    Stream,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Trigger

__all__ = ["LAYOUTS", "kin_of", "read_atif"]

LAYOUTS = (frozenset({"schema_version", "agent", "steps"}),)
"""A document with all of these fields is of this format."""

_HINT = "expected one trajectory: {schema_version: ATIF-v1.…, agent, steps: […]}"
_VERSIONS = "ATIF-v1."
_NOTHING = msgspec.Raw(b"null")


class _ToolCall(msgspec.Struct):
    function_name: str
    arguments: msgspec.Raw = _NOTHING


class _Reference(msgspec.Struct):
    trajectory_id: str | None = None
    session_id: str | None = None
    trajectory_path: str | None = None


class _Result(msgspec.Struct):
    content: msgspec.Raw = _NOTHING
    subagent_trajectory_ref: list[_Reference] | None = None


class _Observation(msgspec.Struct):
    results: list[_Result] = []


class _Metrics(msgspec.Struct):
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None


class _Step(msgspec.Struct):
    source: str
    message: msgspec.Raw = _NOTHING
    reasoning_content: msgspec.Raw = _NOTHING
    timestamp: datetime | None = None
    model_name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    observation: _Observation | None = None
    metrics: _Metrics | None = None
    is_copied_context: bool | None = None
    llm_call_count: int | None = None


class _Agent(msgspec.Struct):
    name: str = ""
    version: str = ""
    model_name: str | None = None
    tool_definitions: msgspec.Raw = _NOTHING


class _Trajectory(msgspec.Struct):
    schema_version: str
    agent: _Agent
    steps: list[_Step]
    session_id: str | None = None
    trajectory_id: str | None = None
    subagent_trajectories: list[_Trajectory] | None = None
    continued_trajectory_ref: str | None = None

    def references(self) -> Iterator[_Reference]:
        """Name the trajectories that its steps started."""
        for step in self.steps:
            for result in step.observation.results if step.observation is not None else ():
                yield from result.subagent_trajectory_ref or ()


@dataclass(slots=True)
class _Conversation:
    """One trajectory, put together step by step."""

    file: TraceFile
    stream: Stream
    head: str
    is_whole: bool
    model: str
    # What stands before all steps.
    opening: History
    history: History
    said_s: float | None = None
    trigger: Trigger = "user"
    launches: dict[str, int] = field(default_factory=dict)

    def go_on(self, trajectory: _Trajectory) -> None:
        """Add the steps of a trajectory that continues it."""
        if trajectory.steps and trajectory.steps[0].is_copied_context:
            self.history = self.opening
            self.stream.events.append(Happening("compaction", len(self.stream.calls)))
        for step in trajectory.steps:
            self.add(step)

    def _message(self, role: str, content: object) -> Message:
        return Message.of(role, content, keeps_text=self.file.keeps_text)

    def add(self, step: _Step) -> None:
        calls = step.tool_calls or []
        is_agent = step.source == "agent"
        messages = [
            self._message(step.source, [step.message, step.reasoning_content]),
            *(self._message(step.source, [call.function_name, call.arguments]) for call in calls),
        ]
        if is_agent and not step.is_copied_context and step.llm_call_count != 0:
            self._answered(step, calls, messages)
        results = step.observation.results if step.observation is not None else []
        returned = [self._message("tool", result.content) for result in results]
        self.history = self.history.then(*messages, *returned)
        self.trigger = "tool_result" if is_agent and returned else "user"
        self.said_s = None if is_agent else seconds(step.timestamp)
        for result in results:
            for reference in result.subagent_trajectory_ref or ():
                for name in _names(reference):
                    if self.stream.calls:
                        self.launches[name] = len(self.stream.calls) - 1

    def _answered(self, step: _Step, calls: list[_ToolCall], answer: list[Message]) -> None:
        metrics = step.metrics or _Metrics()
        end_s = seconds(step.timestamp)
        earlier = self.stream.calls
        if self.said_s is None and earlier and None not in (end_s, earlier[-1].end_s):
            self.stream.num_estimated_gaps += 1
        model = step.model_name or self.model
        call = Call(
            prompt=self.history,
            head=f"{self.head} {model}",
            model=model,
            is_whole=self.is_whole,
            start_s=end_s if self.said_s is None else self.said_s,
            end_s=end_s,
            prompt_tokens=metrics.prompt_tokens if (step.llm_call_count or 1) == 1 else None,
            cached_tokens=metrics.cached_tokens,
            output_tokens=metrics.completion_tokens,
            answer=answer,
            trigger=self.trigger,
            tools=[
                CalledTool.of(
                    ToolCall(tool.function_name, bytes(tool.arguments).decode(errors="replace"))
                )
                for tool in calls
            ],
        )
        earlier.append(call)


def _names(reference: _Reference) -> Iterator[str]:
    """The names by which a step may refer to a trajectory."""
    names = (reference.trajectory_id, reference.session_id, reference.trajectory_path)
    return (name for name in names if name is not None)


def _conversation(file: TraceFile, trajectory: _Trajectory, stream: Stream) -> _Conversation:
    agent = trajectory.agent
    begins_with_system = bool(trajectory.steps) and trajectory.steps[0].source == "system"
    # Told in full it is the same for every agent that is told the same.
    head = "atif" if begins_with_system else f"atif {agent.name} {agent.version}"
    opening = EMPTY_HISTORY
    if agent.tool_definitions != _NOTHING:
        tools = Message.of("system", agent.tool_definitions, keeps_text=file.keeps_text)
        opening = opening.then(tools)
    conversation = _Conversation(
        file, stream, head, begins_with_system, agent.model_name or "", opening, opening
    )
    for step in trajectory.steps:
        conversation.add(step)
    return conversation


@dataclass(frozen=True, slots=True)
class _Found:
    """A trajectory, and the document that it is in; `place` is its field there, ending in a dot."""

    file: TraceFile
    trajectory: _Trajectory
    place: str = ""

    def main_stream(self) -> Stream:
        trajectory = self.trajectory
        name = trajectory.session_id or trajectory.trajectory_id or self.file.name
        return Stream(name, "main")

    def has_known_version(self) -> bool:
        if self.trajectory.schema_version.startswith(_VERSIONS):
            return True
        message = f"unknown version; expected {_VERSIONS}…"
        field = f"{self.place}schema_version"
        self.file.refuse(self.file.error(message, field=field, hint=_HINT))
        return False


class _Family:
    """A main agent's trajectory, and those of its sub-agents, in its document or in others."""

    def __init__(self, main: _Found, others: Mapping[str, _Found]) -> None:
        self._waiting = [(main, main.main_stream())]
        # By their paths; each is taken once.
        self._others = dict(others)

    def streams(self) -> Iterator[Stream]:
        """The main agent's stream, then those of the agents that were started."""
        while self._waiting or self._others:
            if not self._waiting:
                # What named it was left out.
                other = self._others.pop(next(iter(self._others)))
                self._waiting.append((other, other.main_stream()))
            found, stream = self._waiting.pop(0)
            if not found.has_known_version():
                continue
            conversation = _conversation(found.file, found.trajectory, stream)
            parts = [found]
            while (part := self._continuation(parts[-1])) is not None:
                conversation.go_on(part.trajectory)
                parts.append(part)
            yield stream
            for part in parts:
                self._wait_for_sub_agents(part, conversation)

    def _continuation(self, part: _Found) -> _Found | None:
        reference = part.trajectory.continued_trajectory_ref
        found = None if reference is None else self._others.pop(_beside(part.file, reference), None)
        return found if found is not None and found.has_known_version() else None

    def _wait_for_sub_agents(self, part: _Found, caller: _Conversation) -> None:
        for index, inner in enumerate(part.trajectory.subagent_trajectories or ()):
            name = inner.trajectory_id or inner.session_id or str(index)
            found = _Found(part.file, inner, f"{part.place}subagent_trajectories[{index}].")
            self._wait_for(found, caller, name, caller.launches.get(name))
        for reference in part.trajectory.references():
            path = reference.trajectory_path
            other = None if path is None else self._others.pop(_beside(part.file, path), None)
            if path is not None and other is not None:
                name = other.trajectory.trajectory_id or Path(path).name
                self._wait_for(other, caller, name, caller.launches.get(path))

    def _wait_for(
        self, found: _Found, caller: _Conversation, name: str, parent_turn: int | None
    ) -> None:
        parent_id = caller.stream.session_id
        stream = Stream(
            f"{parent_id}/{name}",
            found.trajectory.agent.name,
            parent_id=parent_id,
            parent_turn=parent_turn,
            # The step that started it has its result, so the next one has waited.
            join_turn=None if parent_turn is None else parent_turn + 1,
        )
        self._waiting.append((found, stream))


def _beside(file: TraceFile, reference: str) -> str:
    """The path of a document that another one refers to."""
    return os.path.normpath(Path(file.source).parent / reference)


def kin_of(file: TraceFile) -> Kin:
    """Return which other documents one refers to.

    Raises:
        TraceError: It is no such trajectory.
    """
    waiting = [file.document(_Trajectory, hint=_HINT)]
    paths: list[str | None] = []
    while waiting:
        trajectory = waiting.pop()
        waiting += trajectory.subagent_trajectories or ()
        paths.append(trajectory.continued_trajectory_ref)
        paths += [reference.trajectory_path for reference in trajectory.references()]
    children = tuple(_beside(file, path) for path in paths if path is not None)
    return Kin(os.path.normpath(file.source), children=children)


def read_atif(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one trajectory; taking its sessions adds their chains to `interner`.

    Args:
        file: UTF-8 JSON; documents that it refers to are its `children`.
        interner: Shared by the files of one reading.
        scope: Not needed: content is comparable between files.
        rng: Not needed: sub-agents stay behind their main agent.

    Raises:
        TraceError: It is no such trajectory.
    """
    del scope, rng
    main = _Found(file, file.document(_Trajectory, hint=_HINT))
    others = {
        os.path.normpath(child.source): _Found(child, child.document(_Trajectory, hint=_HINT))
        for child in map(file.beside, file.children)
    }
    streams = list(_Family(main, others).streams())
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
