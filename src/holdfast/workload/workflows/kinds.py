"""The workflows that can be generated: multi-agent set-ups that papers measure.

Sources: KVFlow (arXiv 2507.07400) for `kvflow-single`, `kvflow-concurrent` and PEER; CacheSage and
CacheScout (arXiv 2605.27744, 2608.14624) for the others: anchors are 53 to 62 % of the prompts'
tokens. Neither gives the lengths of prompts, which are assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from holdfast.workload.workflows.workflow import END, Step, Tokens, Workflow, WorkflowAgent

__all__ = ["WORKFLOWS"]

_ANSWER: Tokens = (20, 60)
_TASK: Tokens = (60, 200)
_TOOL_RESULT: Tokens = (0, 20)
_GAP_S = 0.2


def _kvflow(about: str, fixed: int, new: int, answer: int, *, is_private: bool) -> Workflow:
    names = [f"agent-{number}" for number in range(1, 11)]
    return Workflow(
        about=about,
        agents={
            name: WorkflowAgent(fixed, (answer, answer), keeps_history=False) for name in names
        },
        steps={name: Step(name, {after: 1.0}) for name, after in pairwise([*names, names[0]])},
        first=names[0],
        num_calls=40,
        new_tokens=(new, new),
        is_private=is_private,
    )


def _peer() -> Workflow:
    return Workflow(
        about="Plan, execute, express and review; the review ends the workflow or goes back.",
        agents={
            "planner": WorkflowAgent(960, _ANSWER),
            "executor": WorkflowAgent(1280, _ANSWER),
            "expresser": WorkflowAgent(768, _ANSWER),
            "reviewer": WorkflowAgent(768, _ANSWER),
        },
        steps={
            "plan": Step("planner", {"execute": 1}),
            "execute": Step("executor", {"express": 1}),
            "express": Step("expresser", {"review": 1}),
            "review": Step("reviewer", {"plan": 4, END: 1}),
        },
        first="plan",
        num_calls=40,
        task_tokens=_TASK,
        new_tokens=_TOOL_RESULT,
        mean_gap_s=_GAP_S,
    )


_WORKERS = ("researcher", "analyst", "coder", "tester", "writer", "critic")


def _supervised(supervisor: str, usual: float) -> Iterator[tuple[str, Step]]:
    """The steps of an agent that calls one worker after the other.

    After each worker it usually calls the one that stands next to it, else any other one.
    """
    for index, worker in enumerate((_WORKERS[-1], *_WORKERS)):
        after = _WORKERS[index % len(_WORKERS)]
        others = [each for each in _WORKERS if each not in (after, worker)]
        weights = {after: usual} | dict.fromkeys(others, (1.0 - usual) / len(others))
        name = f"after {worker}" if index else "begin"
        yield name, Step(supervisor, weights)
    for worker in _WORKERS:
        yield worker, Step(worker, {f"after {worker}": 1})


def _six_workers(about: str, supervisor: str, usual: float) -> Workflow:
    return Workflow(
        about=about,
        agents={supervisor: WorkflowAgent(896, (10, 20))}
        | {worker: WorkflowAgent(1408, _ANSWER) for worker in _WORKERS},
        steps=dict(_supervised(supervisor, usual)),
        first="begin",
        num_calls=48,
        task_tokens=_TASK,
        new_tokens=_TOOL_RESULT,
        mean_gap_s=_GAP_S,
    )


def _debate(num_debaters: int, num_rounds: int) -> Workflow:
    names = [f"debater-{number}" for number in range(1, num_debaters + 1)]
    turns = [f"{name} in round {number}" for number in range(num_rounds) for name in names]
    return Workflow(
        about=f"{num_debaters} debaters in {num_rounds} rounds, then a judge.",
        agents={name: WorkflowAgent(1024, _ANSWER) for name in (*names, "judge")},
        steps={
            turn: Step(turn.partition(" ")[0], {after: 1})
            for turn, after in pairwise([*turns, "judge"])
        }
        | {"judge": Step("judge", {END: 1})},
        first=turns[0],
        num_calls=len(turns) + 1,
        task_tokens=_TASK,
        new_tokens=_TOOL_RESULT,
        mean_gap_s=_GAP_S,
    )


def _random() -> Workflow:
    names = [f"agent-{number}" for number in range(1, 9)]
    return Workflow(
        about="Eight agents; each next one is drawn from all of them.",
        agents={name: WorkflowAgent(1024, _ANSWER) for name in names},
        steps={name: Step(name, dict.fromkeys(names, 1.0)) for name in names},
        has_graph=False,
        first=names[0],
        num_calls=32,
        task_tokens=_TASK,
        new_tokens=_TOOL_RESULT,
        mean_gap_s=_GAP_S,
    )


WORKFLOWS = {
    "kvflow-single": _kvflow(
        "Ten agents in turn, each with a fixed prefix.", 4096, 32, 32, is_private=False
    ),
    "kvflow-concurrent": _kvflow(
        "Ten agents in turn; each workflow has agents of its own.", 512, 256, 256, is_private=True
    ),
    "peer": _peer(),
    "supervisor": _six_workers(
        "A supervisor calls six workers in an order that it mostly keeps.", "supervisor", 0.8
    ),
    "selector": _six_workers(
        "A group chat: a selector names the next of six speakers.", "selector", 0.5
    ),
    "debate": _debate(4, 6),
    "random": _random(),
}
"""Workflows by name."""
