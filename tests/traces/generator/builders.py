"""Small sets of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import msgspec

from holdfast.traces.generator.checks import check_parameters
from holdfast.traces.generator.families import iterate_families
from holdfast.traces.generator.parameters import SCHEMA, Parameters
from holdfast.traces.record import Session
from holdfast.traces.study.profile import QUANTITIES, TRAITS

__all__ = ["families_of", "independent", "parameters_of", "sessions_of", "traits"]


def parameters_of(agents: dict[str, Any], **fields: Any) -> Parameters:
    """A set as a file would have it, checked."""
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
    """A session of a dependence; alone it has any rank."""
    return [*ranks, *levels, ends_full]


def independent(**fields: Any) -> dict[str, Any]:
    """A dependence in which nothing depends on anything."""
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
