"""Waiting for what a test claims will happen, however busy the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["LONGEST_S", "until", "until_async"]

LONGEST_S: Final = 240.0
"""Longer than anything takes that happens at all; no test waits so long but one that fails."""

_INTERVAL_S = 0.02
_Found = TypeVar("_Found")


def until(claim: Callable[[], _Found]) -> _Found:
    """Ask until the answer is true, and return it; fails after `LONGEST_S`."""
    deadline_s = time.monotonic() + LONGEST_S
    while not (found := claim()):
        assert time.monotonic() < deadline_s, f"still {found!r}"
        time.sleep(_INTERVAL_S)
    return found


async def until_async(claim: Callable[[], _Found]) -> _Found:
    """The same, letting other tasks run."""
    deadline_s = time.monotonic() + LONGEST_S
    while not (found := claim()):
        assert time.monotonic() < deadline_s, f"still {found!r}"
        await asyncio.sleep(_INTERVAL_S)
    return found
