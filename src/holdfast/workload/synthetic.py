"""The default workload: generated sessions that resemble Claude Code's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from holdfast.errors import ConfigError
from holdfast.traces.record import Session
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.files import load_set

__all__ = ["generate_sessions", "iterate_sessions"]

_NAME = "synthetic"
_SET = "claude-code"


def generate_sessions(num_sessions: int, seed: int) -> tuple[Session, ...]:
    """Generate sessions; a larger number extends the same sessions.

    Equal arguments give equal sessions.

    Raises:
        ConfigError: `num_sessions` is below 1.
    """
    if num_sessions < 1:
        raise ConfigError(f"number of sessions is {num_sessions!r}; expected at least 1")
    return tuple(islice(iterate_sessions(seed), num_sessions))


def iterate_sessions(seed: int) -> Iterator[Session]:
    """Generate sessions endlessly; none of them is a sub-agent."""
    for family in iterate_families(load_set(_SET), seed, name=_NAME):
        yield from family
