"""Generates sessions of a workflow: the calls of its agents, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from holdfast.traces.record import Session, Turn
from holdfast.workload.generator.prompt import Prompt, PromptMaker
from holdfast.workload.workflows.workflow import END, Tokens, Workflow, WorkflowAgent

__all__ = ["BLOCK_TOKENS", "iterate_workflow"]

BLOCK_TOKENS = 16
_GAP_DIGITS = 3


def iterate_workflow(workflow: Workflow, seed: int, *, name: str) -> Iterator[Session]:
    """Generate sessions endlessly; equal arguments give equal sessions.

    Args:
        workflow: The kind of workflow.
        seed: Random seed, >= 0.
        name: Prefix of the session ids.
    """
    maker = PromptMaker(BLOCK_TOKENS)
    anchors = _Anchors(maker)
    for index in count():
        session_id = f"{name}-{seed}-{index:04d}"
        if workflow.is_private:
            anchors = _Anchors(maker, f"{session_id}/")
        calls = _Calls(workflow, maker, anchors, np.random.default_rng((seed, index)))
        yield Session(
            session_id,
            BLOCK_TOKENS,
            tuple(calls.turns()),
            f"{name}:{seed}",
            graph=workflow.graph(anchors.namespace),
        )


class _Anchors:
    """The fixed prefixes of agents, made at their first use.

    Args:
        maker: Makes them.
        namespace: Stands before the agents' names in turns.

    Attributes:
        namespace: See the argument.
    """

    def __init__(self, maker: PromptMaker, namespace: str = "") -> None:
        self.namespace = namespace
        self._maker = maker
        self._prompts: dict[str, Prompt] = {}

    def of(self, name: str, agent: WorkflowAgent) -> Prompt:
        """The prompt that consists of an agent's anchor alone. Mutates."""
        if name not in self._prompts:
            self._prompts[name] = self._maker.extended(Prompt(0, ()), agent.anchor_tokens)
        return self._prompts[name]


class _Calls:
    """The calls of one session."""

    def __init__(
        self, workflow: Workflow, maker: PromptMaker, anchors: _Anchors, rng: np.random.Generator
    ) -> None:
        self._workflow = workflow
        self._maker = maker
        self._anchors = anchors
        self._rng = rng
        self._last: dict[str, Prompt] = {}  # by agent, its last prompt
        self._unread: dict[str, int] = {}  # by agent, tokens said since that

    def turns(self) -> Iterator[Turn]:
        """Yield the turns of the session. Mutates."""
        workflow = self._workflow
        self._say(self._draw(workflow.task_tokens))
        name, gap_s = workflow.first, 0.0
        for _ in range(workflow.num_calls):
            step = workflow.steps[name]
            new_tokens = self._draw(workflow.new_tokens)
            prompt = self._prompt(step.agent, new_tokens)
            output_tokens = self._draw(workflow.agents[step.agent].answer_tokens)
            yield Turn(
                gap_s=gap_s,
                prompt_tokens=prompt.num_tokens,
                output_tokens=output_tokens,
                block_ids=prompt.block_ids,
                agent=self._anchors.namespace + step.agent,
            )
            self._say(new_tokens + output_tokens, to_all_but=step.agent)
            self._unread[step.agent] = output_tokens
            following = list(step.next)
            weights = np.array([step.next[each] for each in following], dtype=float)
            name = following[int(self._rng.choice(len(following), p=weights / weights.sum()))]
            if name == END:
                return
            gap_s = round(self._rng.exponential(workflow.mean_gap_s), _GAP_DIGITS)

    def _prompt(self, name: str, new_tokens: int) -> Prompt:
        """The next prompt of an agent. Mutates."""
        agent = self._workflow.agents[name]
        anchor = self._anchors.of(name, agent)
        if not agent.keeps_history:
            return self._maker.extended(anchor, new_tokens)
        last = self._last.get(name, anchor)
        prompt = self._maker.extended(last, self._unread.get(name, 0) + new_tokens)
        self._last[name], self._unread[name] = prompt, 0
        return prompt

    def _say(self, num_tokens: int, to_all_but: str | None = None) -> None:
        for name in self._workflow.agents:
            if name != to_all_but:
                self._unread[name] = self._unread.get(name, 0) + num_tokens

    def _draw(self, tokens: Tokens) -> int:
        return int(self._rng.integers(tokens[0], tokens[1], endpoint=True))
