"""Kills a process amid a read or a write of a block; Python imports this by its name.

`SUDDEN_DEATH_FILE` names a file; when it is there, the next call of what it says is the last.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FLAG = os.environ.get("SUDDEN_DEATH_FILE", "")
_PART_BYTES = 4096  # direct writes must be aligned


def _mortal(name: str, call: Callable[..., int]) -> Callable[..., int]:
    def mortal(descriptor: int, parts: list[Any], *rest: Any) -> int:
        flag = Path(_FLAG)
        if flag.exists() and flag.read_text(encoding="utf-8") == name:
            call(descriptor, [memoryview(parts[0])[:_PART_BYTES]], *rest)
            os.kill(os.getpid(), signal.SIGKILL)
        return call(descriptor, parts, *rest)

    return mortal


if _FLAG:
    os.writev = _mortal("writev", os.writev)
    os.preadv = _mortal("preadv", os.preadv)
