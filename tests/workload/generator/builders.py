"""Builds small parameter sets, and damaged ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import msgspec
from hypothesis import strategies as st

from holdfast.traces.record import Session
from holdfast.workload.generator.checks import check_parameters
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.parameters import SCHEMA, Parameters
from holdfast.workload.study.profile import QUANTITIES, TRAITS

__all__ = [
    "Damage",
    "damaged",
    "damages",
    "families_of",
    "independent",
    "parameters_of",
    "sessions_of",
    "traits",
]


def parameters_of(agents: dict[str, Any], **fields: Any) -> Parameters:
    """A checked set with the agents in a file's layout."""
    content = {"schema": SCHEMA, "about": "a test", "block_size_tokens": 10, "agents": agents}
    parameters = msgspec.convert(content | fields, Parameters)
    check_parameters(parameters)
    return parameters


def traits(
    ranks: Sequence[int] = (0,) * len(TRAITS),
    levels: Sequence[float] = (0.0,) * len(QUANTITIES),
    *,
    ends_full: bool = False,
) -> list[Any]:
    """The traits of one session of a dependence."""
    return [*ranks, *levels, ends_full]


def independent(**fields: Any) -> dict[str, Any]:
    """A dependence without any correlation."""
    num = len(QUANTITIES)
    return {
        "human_share": 0.0,
        "rewrite_share": 0.0,
        "call_share": 0.0,
        "sessions": [traits()],
        "turn_correlations": [
            [float(row == column) for column in range(num)] for row in range(num)
        ],
        "session_shares": [0.0] * num,
        "next_correlations": [0.0] * num,
    } | fields


def families_of(parameters: Parameters, num: int, seed: int = 0) -> list[tuple[Session, ...]]:
    """The first families of a seed."""
    return list(islice(iterate_families(parameters, seed, name="test"), num))


def sessions_of(parameters: Parameters, num: int, seed: int = 0) -> list[Session]:
    """All sessions of the first families of a seed."""
    families: Iterable[tuple[Session, ...]] = families_of(parameters, num, seed)
    return list(chain.from_iterable(families))


Damage = tuple[tuple[str, ...], Any]
"""The path to a field and its new value."""

_DAMAGES: tuple[Any, ...] = (None, -1, 0, 1, 1e308, "x", [], {}, [1, 2], True, "zeros")


def damages(content: Any) -> st.SearchStrategy[Damage]:
    """Replacements of one field at any depth of a document."""
    paths = list(_paths(msgspec.to_builtins(content)))
    return st.tuples(st.sampled_from(paths), st.sampled_from(_DAMAGES))


def damaged(content: Any, damage: Damage) -> Any:
    """The document with one field replaced; "zeros" keeps the field's shape."""
    document = msgspec.json.decode(msgspec.json.encode(content))
    (*path, last), value = damage
    part = document
    for name in path:
        part = part[name]
    before = part[last]
    if value == "zeros":
        value = dict.fromkeys(before, 0) if isinstance(before, dict) else _zeros(before)
    part[last] = value
    return document


def _zeros(value: Any) -> Any:
    return [_zeros(each) for each in value] if isinstance(value, list) else 0


def _paths(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield (*path, name)
            yield from _paths(value, (*path, name))
