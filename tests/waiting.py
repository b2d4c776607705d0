"""Waiting for events of tests, on machines of any load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["LONGEST_S", "until", "until_async"]

LONGEST_S: Final = 240.0
"""Longer than any event takes; only a failing test waits this long."""

_INTERVAL_S = 0.02
_Found = TypeVar("_Found")


def until(claim: Callable[[], _Found]) -> _Found:
    """Call `claim` until it returns a true value; fails after `LONGEST_S`."""
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
