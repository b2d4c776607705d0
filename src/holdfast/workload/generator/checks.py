"""Checks that a parameter set can generate sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import msgspec
import numpy as np

from holdfast.errors import ConfigError
from holdfast.workload.generator.parameters import MAIN, Agent, Parameters, Table
from holdfast.workload.study.wait import END

__all__ = ["check_parameters"]

_SIGNED = ("added_tokens",)
# Far beyond any recording; larger values would run for days or fill the memory.
_LARGEST = 1e8
_LARGEST_NUMS = {"num_turns": 1e5, "num": 1e3}


def check_parameters(parameters: Parameters) -> None:
    """Raise unless sessions can be generated from the set. Pure.

    Raises:
        ConfigError: A table is malformed, a named part does not exist, a session may never end, or
            an agent may call itself; the message has the field.
    """
    percents = parameters.percents
    if (percents[:1], percents[-1:]) != ((0.0,), (100.0,)) or not _is_ascending(percents):
        raise ConfigError("`percents` does not ascend from 0 to 100")
    if not parameters.answer_s_per_token <= _LARGEST:
        raise ConfigError(f"`answer_s_per_token` is not a number up to {_LARGEST:,.0f}")
    for path, value in _tables(parameters, ""):
        _check_table(path, value, len(percents))
    if MAIN not in parameters.agents:
        raise ConfigError(f"`agents` has no {MAIN!r}; expected it, since every family starts there")
    for name, agent in parameters.agents.items():
        _check_agent(f"agents.{name}", agent, parameters.agents)
    calls = {
        name: [step.calls.agent for step in agent.steps.values() if step.calls is not None]
        for name, agent in parameters.agents.items()
    }
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        raise ConfigError(f"agents call each other in a cycle: {error.args[1]}") from error


def _tables(part: msgspec.Struct, path: str) -> Iterator[tuple[str, Table]]:
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.name)
        field_path = f"{path}.{field.name}" if path else field.name
        if field.type in (Table, Table | None) and value is not None:
            yield field_path, value
        for key, inner in _parts(value):
            yield from _tables(inner, f"{field_path}{key}")


def _parts(value: object) -> Iterator[tuple[str, msgspec.Struct]]:
    """Yield the structures in a value, each with its path."""
    if isinstance(value, msgspec.Struct):
        yield "", value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, msgspec.Struct):
                yield f".{key}", inner
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            if isinstance(inner, msgspec.Struct):
                yield f"[{index}]", inner


def _check_table(path: str, table: Table, num_percents: int) -> None:
    values = table if isinstance(table, tuple) else (table,)
    if isinstance(table, tuple) and len(table) != num_percents:
        raise ConfigError(
            f"`{path}` has {len(table)} entries; expected {num_percents}, one for each of "
            "`percents`, or a single number"
        )
    limit = _LARGEST_NUMS.get(path.rpartition(".")[2], _LARGEST)
    if not all(abs(value) <= limit for value in values):
        raise ConfigError(f"`{path}` has a value that is not a number up to {limit:,.0f}")
    if not _is_ascending(values, may_be_equal=True):
        raise ConfigError(f"`{path}` is not ascending")
    if values[0] < 0 and not path.endswith(_SIGNED):
        raise ConfigError(f"`{path}` has {values[0]!r}; expected at least 0")


def _check_agent(path: str, agent: Agent, agents: Mapping[str, Agent]) -> None:
    if END in agent.steps:
        raise ConfigError(
            f"`{path}.steps` has {END!r}, which is reserved for a session's end; expected another"
        )
    _check_weights(f"{path}.first", agent.first, agent.steps)
    if agent.labels:
        _check_weights(f"{path}.labels", agent.labels, agent.labels)
    for name, role in agent.roles.items():
        _check_sum(f"{path}.roles.{name}.heads", [head.weight for head in role.heads])
    for name, step in agent.steps.items():
        step_path = f"{path}.steps.{name}"
        _check_weights(f"{step_path}.next", step.next, {*agent.steps, END})
        if step.role not in agent.roles:
            raise ConfigError(
                f"`{step_path}.role` is {step.role!r}, which is not in `{path}.roles`"
            )
        if step.calls is not None and step.calls.agent not in agents:
            raise ConfigError(
                f"`{step_path}.calls.agent` is {step.calls.agent!r}, which is not in `agents`"
            )
        missing = set(step.rewrites) - {"compaction"} - set(agent.rewrites)
        if "compaction" in step.rewrites or missing:
            raise ConfigError(
                f"`{step_path}.rewrites` has {', '.join(sorted(step.rewrites))}; expected kinds in "
                f"`{path}.rewrites`, without compaction"
            )
    if agent.compaction_chances and "compaction" not in agent.rewrites:
        raise ConfigError(f"`{path}.compaction_chances` needs `{path}.rewrites.compaction`")
    if agent.num_turns is None:
        _check_end(path, agent)


def _check_weights(
    path: str, weights: Mapping[str, float], known: Mapping[str, object] | set[str]
) -> None:
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise ConfigError(f"`{path}` names {unknown[0]!r}, which is not a step")
    _check_sum(path, weights.values())


def _check_sum(path: str, weights: Iterable[float]) -> None:
    total = sum(weights)
    if not total > 0:
        raise ConfigError(f"`{path}` has no weight above 0")
    if total == math.inf:
        raise ConfigError(f"`{path}` has weights with an infinite sum")


def _check_end(path: str, agent: Agent) -> None:
    """Raise unless every step can reach the end, after a bounded mean number of turns."""
    ending = {END}
    while True:
        added = {
            name
            for name, step in agent.steps.items()
            if name not in ending and any(step.next.get(each, 0) > 0 for each in ending)
        }
        if not added:
            break
        ending |= added
    stuck = sorted(set(agent.steps) - ending)
    if stuck:
        raise ConfigError(
            f"`{path}.steps.{stuck[0]}` never reaches `end`; expected a way to it, or "
            f"`{path}.num_turns`"
        )
    mean_turns, most = _mean_turns(agent), _LARGEST_NUMS["num_turns"]
    if mean_turns > most:
        raise ConfigError(
            f"`{path}.steps` reach `end` after {mean_turns:,.0f} turns on average; expected up "
            f"to {most:,.0f}, or `{path}.num_turns`"
        )


def _mean_turns(agent: Agent) -> float:
    """Mean number of turns until `end` (fundamental matrix of the step transitions)."""
    names = tuple(agent.steps)
    follows = np.array([_shares(step.next, (*names, END))[:-1] for step in agent.steps.values()])
    try:
        turns = np.linalg.solve(np.eye(len(names)) - follows, np.ones(len(names)))
    except np.linalg.LinAlgError:  # the chance of an end is lost in rounding
        return math.inf
    mean = float(np.dot(_shares(agent.first, names), turns))
    return mean if mean >= 1.0 else math.inf


def _shares(weights: Mapping[str, float], names: tuple[str, ...]) -> list[float]:
    total = sum(weights.values())
    return [weights.get(name, 0.0) / total for name in names]


def _is_ascending(values: tuple[float, ...], *, may_be_equal: bool = False) -> bool:
    return all(low < high or (may_be_equal and low == high) for low, high in pairwise(values))
