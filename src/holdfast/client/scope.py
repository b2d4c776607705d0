"""What the requests of this task or thread belong to."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from holdfast.client.session import Session
from holdfast.client.workflow import Workflow

__all__ = [
    "Expectation",
    "Frame",
    "Scope",
    "Source",
    "add_source",
    "current",
    "enter",
    "explicit",
    "remove_source",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is known in advance about the turns of a block.

    Attributes:
        turn_end: What ends them: `tool:NAME`, `human`.
        gap_s: Expected pause after them (s).
        retain_s: Time after them for which the cache should be kept (s).
    """

    turn_end: str | None = None
    gap_s: float | None = None
    retain_s: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A step of another framework that the code runs in.

    Attributes:
        key: Differs for each frame.
        session: The session of its requests.
        workflow: The workflow that it is a step of; None for the one around it.
    """

    key: Hashable
    session: Session
    workflow: Workflow | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The innermost blocks of each kind.

    Attributes:
        session: The session of requests; None outside of any.
        workflow: The workflow; None outside of any.
        expectation: What is known about the next turns.
        source: Finds frames inside of these blocks; None for the process's sources only.
        frame_key: The frame that these blocks were entered in, which they refine.
    """

    session: Session | None = None
    workflow: Workflow | None = None
    expectation: Expectation | None = None
    source: Source | None = None
    frame_key: Hashable = None


Source = Callable[[Scope], Frame | None]
"""Finds the frame that runs in a scope; called with every request."""

_NO_SCOPE: Final = Scope()
_scope: ContextVar[Scope] = ContextVar("holdfast_scope", default=_NO_SCOPE)
_sources: list[Source] = []
_failed: set[str] = set()


def add_source(source: Source) -> None:
    """Ask a framework for frames from now on, in every scope. Mutates."""
    if source not in _sources:
        _sources.append(source)


def remove_source(source: Source) -> None:
    """Stop asking a framework. Mutates."""
    with contextlib.suppress(ValueError):
        _sources.remove(source)


def current() -> Scope:
    """Return the scope of the running code: its blocks, refined by frames inside."""
    scope = _scope.get()
    for source in (scope.source, *_sources):
        frame = None if source is None else _ask(source, scope)
        if frame is not None and frame.key != scope.frame_key:
            workflow = frame.workflow or scope.workflow
            return replace(scope, session=frame.session, workflow=workflow, frame_key=frame.key)
    return scope


def explicit() -> Scope:
    """Return the scope of the blocks around the running code, without frames."""
    return _scope.get()


@contextlib.contextmanager
def enter(scope: Scope) -> Iterator[None]:
    """Make a scope the current one for a block."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        # A generator may end in another context than it began in, where nothing was set.
        with contextlib.suppress(ValueError):
            _scope.reset(token)


def _ask(source: Source, scope: Scope) -> Frame | None:
    try:
        return source(scope)
    except Exception as error:
        reason = f"{source!r}: {type(error).__name__}"
        if reason not in _failed:
            _failed.add(reason)
            _logger.warning(
                "requests are sent without the agent that runs: %s", reason, exc_info=True
            )
        return None
