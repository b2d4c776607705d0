"""Reader of ATIF trajectories (version 1): one trajectory a document.

Sub-agents' trajectories are in the same document or in documents that it refers to.

Known: steps in order, lengths of calls (prompts with their cached tokens), tools, and the step
that started each sub-agent and received its result. Consecutive steps of one answer are one turn.
A trajectory that another document continues is one session; steps that the continuation copies are
the result of a compaction.

Assumed: an answer whose observation the agent continues from called a tool, named or not. A step's
only time is the end of its answer, so the time between two steps of the agent includes the second
answer, and the gap counts as estimated. A step merged from several calls records the sum of their
prompts, so its prompt length is estimated.
"""

from __future__ import annotations

import os.path
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.atif_steps import (
    Step,
    Trajectory,
    answers,
    completion_of,
    usage_of,
)
from holdfast.traces.formats.cache_usage import whole_prompts
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    RecordedEvent,
    Stream,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Trigger

__all__ = ["LAYOUTS", "links_of", "read_atif"]

LAYOUTS = (frozenset({"schema_version", "agent", "steps"}),)
"""A document with all of these fields is of this format."""

_HINT = "expected one trajectory: {schema_version: ATIF-v1.…, agent, steps: […]}"
_VERSIONS = "ATIF-v1."
# Recorded reason for the end of an answer that called a tool.
_TOOL_USE = "tool_use"


@dataclass(slots=True)
class _Conversation:
    """One trajectory, built step by step."""

    file: TraceFile
    stream: Stream
    head: str
    is_whole: bool
    model: str
    # Messages before the first step.
    opening: History
    history: History
    said_s: float | None = None
    trigger: Trigger = "user"
    # Whether a tool ran after the latest answer; whether the latest step reports a program's act.
    had_tool_result: bool = False
    is_report: bool = False
    launches: dict[str, int] = field(default_factory=dict)

    def continue_with(self, trajectory: Trajectory) -> None:
        """Add the steps of the trajectory that continues this one."""
        if trajectory.steps and trajectory.steps[0].is_copied_context:
            self.history = self.opening
            self.stream.events.append(RecordedEvent("compaction", len(self.stream.calls)))
        self.add(trajectory.steps)

    def add(self, steps: Sequence[Step]) -> None:
        """Add steps that one program recorded, so that they count tokens alike."""
        parts = list(answers(steps))
        prompts = whole_prompts(usage_of(part) for part in parts)
        for part, prompt_tokens in zip(parts, prompts, strict=True):
            self._add(part, prompt_tokens)

    def turn_before(self, inner: Trajectory) -> int | None:
        """Return the turn after which a trajectory began; None if times are missing."""
        begun_s = next((at for step in inner.steps if (at := seconds(step.timestamp))), None)
        if begun_s is None:
            return None
        ends = [call.end_s for call in self.stream.calls]
        ended = [index for index, end_s in enumerate(ends) if end_s is None or end_s <= begun_s]
        return max(ended, default=None)

    def _add(self, steps: list[Step], prompt_tokens: int | None) -> None:
        last = steps[-1]
        messages = [message for step in steps for message in self._messages(step)]
        if last.is_answer:
            self._answered(steps, prompt_tokens, messages)
        results = [result for step in steps for result in step.results]
        returned = [self._message("tool", result.content) for result in results]
        self.history = self.history.then(*messages, *returned)
        is_agent = last.source == "agent"
        if returned or (is_agent and any(step.calls for step in steps)):
            self.trigger = "tool_result"
        elif last.source != "system":
            self.trigger = "user"
        if last.is_answer:
            self.had_tool_result = self.trigger == "tool_result"
        elif last.source == "user" and not (last.is_copied_context or self.is_report):
            self.had_tool_result = False
        self.is_report = last.source == "system" and bool(returned)
        self.said_s = None if is_agent else seconds(last.timestamp)
        if self.stream.calls:
            for result in results:
                for reference in result.subagent_trajectory_ref or ():
                    turn = len(self.stream.calls) - 1
                    self.launches.update(dict.fromkeys(reference.names(), turn))

    def _messages(self, step: Step) -> Iterator[Message]:
        yield self._message(step.source, step.message)
        if step.reasons:
            yield self._message(step.source, step.reasoning_content)
        for call in step.calls:
            yield self._message(step.source, [call.function_name, call.arguments])

    def _message(self, role: str, content: object) -> Message:
        return Message.of(role, content, keeps_text=self.file.keeps_text)

    def _answered(
        self, steps: list[Step], prompt_tokens: int | None, answer: list[Message]
    ) -> None:
        last = steps[-1]
        end_s = seconds(last.timestamp)
        earlier = self.stream.calls
        if earlier and self.had_tool_result and not earlier[-1].tools:
            # The agent continued without a user, so the answer called a tool.
            earlier[-1].stop = _TOOL_USE
        if self.said_s is None and earlier and None not in (end_s, earlier[-1].end_s):
            self.stream.num_estimated_gaps += 1
        model = last.model_name or self.model
        call = Call(
            prompt=self.history,
            head=f"{self.head} {model}",
            model=model,
            is_whole=self.is_whole,
            start_s=end_s if self.said_s is None else self.said_s,
            end_s=end_s,
            prompt_tokens=prompt_tokens if (last.llm_call_count or 1) == 1 else None,
            cached_tokens=usage_of(steps).read,
            output_tokens=completion_of(steps),
            answer=answer,
            trigger=self.trigger,
            tools=[
                CalledTool.of(
                    ToolCall(tool.function_name, bytes(tool.arguments).decode(errors="replace"))
                )
                for step in steps
                for tool in step.calls
            ],
        )
        earlier.append(call)


def _conversation(file: TraceFile, trajectory: Trajectory, stream: Stream) -> _Conversation:
    agent = trajectory.agent
    begins_with_system = bool(trajectory.steps) and trajectory.steps[0].source == "system"
    # A recorded system message identifies the head by its content alone.
    head = "atif" if begins_with_system else f"atif {agent.name} {agent.version}"
    opening = EMPTY_HISTORY
    if agent.has_tool_definitions:
        tools = Message.of("system", agent.tool_definitions, keeps_text=file.keeps_text)
        opening = opening.then(tools)
    conversation = _Conversation(
        file, stream, head, begins_with_system, agent.model_name or "", opening, opening
    )
    conversation.add(trajectory.steps)
    return conversation


@dataclass(frozen=True, slots=True)
class _Found:
    """A trajectory and its document; `place` is the prefix of its fields there."""

    file: TraceFile
    trajectory: Trajectory
    place: str = ""

    def main_stream(self) -> Stream:
        trajectory = self.trajectory
        name = trajectory.session_id or trajectory.trajectory_id or self.file.label
        return Stream(name, "main")

    def has_known_version(self) -> bool:
        if self.trajectory.schema_version.startswith(_VERSIONS):
            return True
        message = f"unknown version; expected {_VERSIONS}…"
        field = f"{self.place}schema_version"
        self.file.refuse(self.file.error(message, field=field, hint=_HINT))
        return False


class _Family:
    """A main agent's trajectory and its sub-agents', across documents."""

    def __init__(self, main: _Found, others: Mapping[str, _Found]) -> None:
        self._waiting = [(main, main.main_stream())]
        # By path; each is read once.
        self._others = dict(others)

    def streams(self) -> Iterator[Stream]:
        """Yield the main agent's stream, then those of its sub-agents."""
        while self._waiting or self._others:
            if not self._waiting:
                # The trajectory that refers to it was skipped.
                other = self._others.pop(next(iter(self._others)))
                self._waiting.append((other, other.main_stream()))
            found, stream = self._waiting.pop(0)
            if not found.has_known_version():
                continue
            conversation = _conversation(found.file, found.trajectory, stream)
            parts = [found]
            while (part := self._continuation(parts[-1])) is not None:
                conversation.continue_with(part.trajectory)
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
            parent_turn = caller.launches.get(name, caller.turn_before(inner))
            self._wait_for(found, caller, name, parent_turn)
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
            # The step that started it holds its result, so the next step waited for it.
            join_turn=None if parent_turn is None else parent_turn + 1,
        )
        self._waiting.append((found, stream))


def _beside(file: TraceFile, reference: str) -> str:
    """Return the path of a document that another one refers to."""
    return os.path.normpath(Path(file.source).parent / reference)


def _document(file: TraceFile) -> Trajectory:
    return file.document(Trajectory, hint=_HINT).apart()


def links_of(file: TraceFile) -> FileLinks:
    """Return the documents it refers to, and the session it may be converted from.

    Raises:
        TraceError: The file is not a trajectory.
    """
    main = _document(file)
    waiting = [main]
    paths: list[str | None] = []
    while waiting:
        trajectory = waiting.pop()
        waiting += trajectory.subagent_trajectories or ()
        paths.append(trajectory.continued_trajectory_ref)
        paths += [reference.trajectory_path for reference in trajectory.references()]
    children = tuple(_beside(file, path) for path in paths if path is not None)
    name = os.path.normpath(file.source)
    return FileLinks(name, children=children, converted_id=main.session_id or "")


def read_atif(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: UTF-8 JSON; its `children` are the documents that it refers to.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: The file is not a trajectory.
    """
    del scope, rng
    main = _Found(file, _document(file))
    others = {
        os.path.normpath(child.source): _Found(child, _document(child))
        for child in map(file.sibling, file.children)
    }
    streams = list(_Family(main, others).streams())
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
