"""ATIF's trajectories and steps, and the grouping of steps into answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.traces.formats.cache_usage import CacheUsage
from holdfast.traces.formats.quantities import MAX_TOKENS, Tokens

__all__ = ["Step", "Trajectory", "answers", "completion_of", "usage_of"]

_NOTHING: Final = msgspec.Raw(b"null")
# Names, outside of the format's own, of prompt tokens written to a cache and read from it.
_WRITTEN: Final = (
    "cache_creation_input_tokens",
    "cache_write_input_tokens",
    "cache_creation_tokens",
    "cache_write_tokens",
)
_READ: Final = ("cache_read_input_tokens", "cached_tokens")


class _ToolCall(msgspec.Struct):
    function_name: str
    arguments: msgspec.Raw = _NOTHING
    tool_call_id: str | None = None


class _Reference(msgspec.Struct):
    """A step's reference to a trajectory that it started."""

    trajectory_id: str | None = None
    session_id: str | None = None
    trajectory_path: str | None = None

    def names(self) -> Iterator[str]:
        """Yield the names that may identify the trajectory."""
        names = (self.trajectory_id, self.session_id, self.trajectory_path)
        return (name for name in names if name is not None)


class _Result(msgspec.Struct):
    """The result of an action."""

    content: msgspec.Raw = _NOTHING
    subagent_trajectory_ref: list[_Reference] | None = None


class _Observation(msgspec.Struct):
    results: list[_Result] = []


class _Metrics(msgspec.Struct):
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    extra: Any = None

    def usage(self) -> CacheUsage:
        """Return the prompt's length and its cached tokens."""
        read = self.cached_tokens
        if read is None:
            read = _count(self.extra, _READ)
        return CacheUsage(self.prompt_tokens or None, read, _count(self.extra, _WRITTEN) or 0)


class Step(msgspec.Struct):
    """One side's message or actions, and their results."""

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
    extra: Any = None

    @property
    def is_sidechain(self) -> bool:
        """Whether it is a sub-agent's step among its parent's."""
        return isinstance(self.extra, dict) and self.extra.get("is_sidechain") is True

    @property
    def is_answer(self) -> bool:
        """Whether a model wrote it in this session."""
        is_agent = self.source == "agent"
        return is_agent and not self.is_copied_context and self.llm_call_count != 0

    @property
    def reasons(self) -> bool:
        """Whether it records reasoning."""
        return self.reasoning_content != _NOTHING

    @property
    def says_nothing(self) -> bool:
        """Whether its message is empty, or the text that Harbor writes for an empty one."""
        silent = {b"null", b'""'}
        for call in self.calls:
            silent.add(msgspec.json.encode(f"Executed {call.function_name} {call.tool_call_id}"))
        return bytes(self.message) in silent

    @property
    def calls(self) -> list[_ToolCall]:
        """Its tool calls."""
        return self.tool_calls or []

    @property
    def results(self) -> list[_Result]:
        """Its actions' results."""
        return [] if self.observation is None else self.observation.results

    @property
    def usage(self) -> CacheUsage | None:
        """Its call's cache usage; None if not recorded."""
        metrics = self.metrics
        if metrics is None or not (metrics.prompt_tokens or metrics.completion_tokens):
            return None
        return metrics.usage()


class _Agent(msgspec.Struct):
    name: str = ""
    version: str = ""
    model_name: str | None = None
    tool_definitions: msgspec.Raw = _NOTHING

    @property
    def has_tool_definitions(self) -> bool:
        return self.tool_definitions != _NOTHING


class Trajectory(msgspec.Struct):
    """A document, or a sub-agent's trajectory in a document."""

    schema_version: str
    agent: _Agent
    steps: list[Step]
    session_id: str | None = None
    trajectory_id: str | None = None
    subagent_trajectories: list[Trajectory] | None = None
    continued_trajectory_ref: str | None = None

    def apart(self) -> Trajectory:
        """Return it with each sub-agent's steps in a trajectory of its own; pure.

        Assumed: a user's step begins each sub-agent.
        """
        sidechains: list[list[Step]] = []
        for step in self.steps:
            if step.is_sidechain and (step.source == "user" or not sidechains):
                sidechains.append([])
            if step.is_sidechain:
                sidechains[-1].append(step)
        if not sidechains or not any(not step.is_sidechain for step in self.steps):
            return self
        steps = [step for step in self.steps if not step.is_sidechain]
        agent = msgspec.structs.replace(self.agent, name=f"{self.agent.name} sidechain")
        added = [
            Trajectory(
                self.schema_version, agent, sidechain_steps, trajectory_id=f"sidechain-{number}"
            )
            for number, sidechain_steps in enumerate(sidechains, start=1)
        ]
        inner = [*(self.subagent_trajectories or ()), *added]
        return msgspec.structs.replace(self, steps=steps, subagent_trajectories=inner)

    def references(self) -> Iterator[_Reference]:
        """Yield references to the trajectories that its steps started."""
        for step in self.steps:
            for result in step.results:
                yield from result.subagent_trajectory_ref or ()


@dataclass(slots=True)
class _Answer:
    """Consecutive steps of one answer, or one step of another kind."""

    steps: list[Step] = field(default_factory=list)

    def includes(self, step: Step) -> bool:
        """Whether the next step is part of the same answer.

        Some writers make a step of each part of an answer, with the answer's metrics in each step
        or in the first only. A call's result is in the call's step, so parallel calls may have
        results between them; the later call's step then has no message. After an answer without
        calls and results a model has nothing to continue from, so the next step belongs to it.
        """
        last = self.steps[-1]
        if not (last.is_answer and step.is_answer) or step.llm_call_count is not None:
            return False
        if step.model_name is not None and step.model_name != last.model_name:
            return False
        if any(one.results for one in self.steps) and not step.says_nothing:
            return False
        usages = [usage for one in self.steps if (usage := one.usage) is not None]
        if usages and step.usage is not None:
            return usages[0].prompt is not None and usages[0] == step.usage
        hands_over = any(one.calls or one.results for one in self.steps)
        return bool(usages) or not hands_over


def answers(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Yield the steps of each answer together, and every other step alone; pure."""
    answer: _Answer | None = None
    for step in steps:
        if answer is not None and answer.includes(step):
            answer.steps.append(step)
            continue
        if answer is not None:
            yield answer.steps
        answer = _Answer([step])
    if answer is not None:
        yield answer.steps


def usage_of(answer: Iterable[Step]) -> CacheUsage:
    """Return the cache usage of an answer's call; pure."""
    return next((step.usage for step in answer if step.usage is not None), CacheUsage())


def completion_of(answer: Iterable[Step]) -> int | None:
    """Return an answer's length, the largest that its steps record; pure."""
    noted = [step.metrics.completion_tokens for step in answer if step.metrics is not None]
    return max((count for count in noted if count is not None), default=None)


def _count(extra: Any, names: Iterable[str]) -> int | None:
    """Return a token count from metrics outside of the format; None if there is none."""
    if not isinstance(extra, dict):
        return None
    details = extra.get("prompt_tokens_details")
    for place in (extra, details if isinstance(details, dict) else {}):
        for name in names:
            count = place.get(name)
            if isinstance(count, int) and 0 <= count <= MAX_TOKENS:
                return count
    return None
