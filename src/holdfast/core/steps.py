"""Work in steps, between which its caller may do other work."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["Steps", "finished"]

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""Yields after each step, and returns its result after the last."""


def finished(steps: Steps[T]) -> T:
    """Do all steps, and return their result. Mutates what they mutate."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
