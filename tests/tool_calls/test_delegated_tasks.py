"""Delegated tasks, recognised in the prompts of sub-agents."""

from __future__ import annotations

import json

import pytest

from holdfast.tool_calls.delegated_tasks import (
    DelegatedTasks,
    normalized,
    num_delegated,
    waits_for_agents,
)
from holdfast.tool_calls.syntax import make_call
from holdfast.tool_calls.turn_end import TurnEnd

TASK = 'Find where "users" are made.\n\n- look in src/\n- say which file, and Gr\u00fc\u00dfe'


def _called(name: str, **arguments: object) -> TurnEnd:
    call = make_call(name, json.dumps(arguments))
    assert call is not None
    return TurnEnd("tool", (call,))


def _matches(end: TurnEnd, prompt: str) -> bool:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    tasks.observe("", end, "root")
    return tasks.find("", normalized(prompt)) == "root"


@pytest.mark.parametrize("name", ["Task", "Agent", "spawn_agent", "multi_agent_v1__spawn_agent"])
def test_prompt_with_the_task_is_a_sub_agents(name: str) -> None:
    end = _called(name, description="find users", prompt=TASK, subagent_type="Explore")
    assert _matches(end, f"You are a sub-agent.\n<user>\n{TASK}\n</user>")
    assert not _matches(end, "You are a sub-agent.\n<user>\nfind users\n</user>")


def test_long_task_matches_by_its_beginning() -> None:
    task = "word " * 1000
    end = _called("Task", prompt=f"Do this: {task}")
    assert len(end.calls[0].arguments) < len(task)
    assert _matches(end, f"Do this: {task}")
    assert not _matches(end, task)


@pytest.mark.parametrize(
    "end",
    [
        _called("Bash", command=TASK),
        _called("Task", prompt="go on"),
        _called("Task"),
        TurnEnd("tool"),
        TurnEnd("human"),
    ],
)
def test_other_turn_ends_give_no_task(end: TurnEnd) -> None:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    tasks.observe("", end, "root")
    assert not tasks.has_any("")


def test_oldest_tasks_are_forgotten() -> None:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    for number in range(100):
        tasks.observe("", _called("Task", prompt=f"the task with the number {number}."), "root")
    assert tasks.find("", "the task with the number 99.")
    assert tasks.find("", "the task with the number 35.") is None
    assert tasks.find("", "the task with the number 36.")


def test_tasks_match_for_their_own_tenant_only() -> None:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    tasks.observe("alice", _called("Task", prompt="You are a coding agent."), "root")
    assert tasks.find("alice", "You are a coding agent.") == "root"
    assert tasks.find("bob", "You are a coding agent.") is None
    assert not tasks.has_any("bob")


def test_longest_task_decides_between_agents() -> None:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    tasks.observe("", _called("Task", prompt="Find the users, quickly."), "one")
    tasks.observe("", _called("Task", prompt="Find the users, quickly. Then count them."), "two")
    assert tasks.find("", "Find the users, quickly. Then count them.") == "two"
    assert tasks.find("", "Find the users, quickly.") == "one"


def test_tasks_of_a_forgotten_agent_are_forgotten() -> None:
    tasks: DelegatedTasks[str] = DelegatedTasks()
    tasks.observe("", _called("Task", prompt="Find the users, quickly."), "one")
    tasks.forget("one")
    assert not tasks.has_any("")


def test_calls_that_start_sub_agents_are_counted() -> None:
    names = ("Task", "Bash", "multi_agent_v1__spawn_agent", "wait_agent", "send_message")
    calls = [call for name in names for call in _called(name).calls]
    assert num_delegated(calls) == 2
    assert [waits_for_agents(call) for call in calls] == [False, False, False, True, False]
