"""OpenAI Agents SDK: sessions from its traces, hand-offs as a step graph.

    from agents import set_trace_processors
    from holdfast.client.openai_agents import HoldfastTracing

    set_trace_processors([HoldfastTracing()])  # in place of the export to OpenAI

The SDK's tracing has to be on: `set_tracing_disabled(True)` turns this off as well. Its hooks are
no way to do the same, since it calls them in tasks of their own and runs agents that are tools
without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.client.names import clean_id
from holdfast.client.scope import Frame, Scope, add_source, explicit, remove_source
from holdfast.client.spans import OpenSpans, SpanInfo
from holdfast.client.workflow import Step, StepGraph

try:
    from agents import Agent
    from agents.tracing import AgentSpanData, FunctionSpanData, get_current_span, get_current_trace
    from agents.tracing.processor_interface import TracingProcessor
except ImportError as error:
    raise ImportError(
        "holdfast.client.openai_agents needs the OpenAI Agents SDK: pip install openai-agents"
    ) from error

__all__ = ["HoldfastTracing", "step_graph"]


class HoldfastTracing(TracingProcessor):  # type: ignore[misc]
    """Follows open spans and names the agent of requests that are sent in them.

    `RunConfig.group_id` is the conversation: runs of one group continue its agents' sessions.
    """

    def __init__(self) -> None:
        self._spans = OpenSpans()
        add_source(self._frame)

    def on_trace_start(self, trace: Any) -> None:
        """Take a trace that starts; see the SDK."""
        info = SpanInfo(conversation=getattr(trace, "group_id", None) or "")
        self._spans.start(trace.trace_id, None, trace.trace_id, lambda: info, explicit())

    def on_trace_end(self, trace: Any) -> None:
        """Take a trace that ends; see the SDK."""
        self._spans.end(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        """Take a span that starts; see the SDK."""
        info = _info(span.span_data)
        parent_id = span.parent_id or span.trace_id
        self._spans.start(span.span_id, parent_id, span.trace_id, lambda: info, explicit())

    def on_span_end(self, span: Any) -> None:
        """Take a span that ends; see the SDK."""
        self._spans.end(span.span_id)

    def shutdown(self) -> None:
        """Name no agents any more; see the SDK."""
        remove_source(self._frame)

    def force_flush(self) -> None:
        """Do nothing: no span is kept to be exported."""

    def _frame(self, scope: Scope) -> Frame | None:
        span, trace = get_current_span(), get_current_trace()
        inner = span.span_id if span is not None else trace.trace_id if trace is not None else None
        return None if inner is None else self._spans.frame(inner, scope)


def step_graph(start: Agent[Any]) -> StepGraph:
    """Return the hand-offs from an agent on as a step graph.

        with workflow(graph=step_graph(triage)):
            Runner.run_sync(triage, "My invoice is wrong")

    After each agent one of the next ones runs. Hand-offs to agents that are not known in advance
    are left out.
    """
    after: dict[str, list[str]] = {}
    found = list(_reachable(start))
    for agent in found:
        after.setdefault(_name(agent), [])
        for target in _targets(agent):
            before = after.setdefault(_name(target), [])
            if _name(agent) not in before:
                before.append(_name(agent))
    steps: list[Step] = []
    for name, before in after.items():
        step = Step(agent_id=name, fork="one")
        if before:
            step |= {"after": before, "join": "any"}
            if name == _name(start):
                step["entry"] = True
        steps.append(step)
    return {"agents": steps}


def _reachable(start: Agent[Any]) -> Iterator[Agent[Any]]:
    waiting, seen = [start], {id(start)}
    while waiting:
        agent = waiting.pop(0)
        yield agent
        for target in _targets(agent):
            if id(target) not in seen:
                seen.add(id(target))
                waiting.append(target)


def _targets(agent: Agent[Any]) -> list[Agent[Any]]:
    """The agents that an agent may hand off to."""
    found = []
    for handoff in agent.handoffs:
        # A `Handoff` knows its agent weakly, and only by this name.
        target = handoff if isinstance(handoff, Agent) else _referred(handoff)
        if isinstance(target, Agent):
            found.append(target)
    return found


def _referred(handoff: Any) -> object:
    reference = getattr(handoff, "_agent_ref", None)
    return reference() if callable(reference) else None


def _name(agent: Agent[Any]) -> str:
    return clean_id(agent.name, what="an agent's name")


def _info(data: Any) -> SpanInfo:
    if isinstance(data, AgentSpanData):
        return SpanInfo(agent=data.name or "")
    return SpanInfo(tool=data.name or "") if isinstance(data, FunctionSpanData) else SpanInfo()
