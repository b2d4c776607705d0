"""Kills a process amid a read or a write of a block; Python imports this by its name.

`SUDDEN_DEATH_FILE` names a file; when it is there, the next call of what it says is the last. To
compute a block counts as slow, once that is known: whether blocks are copied and waited for would
otherwise depend on how busy the machine is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.runtime.runtime import AgentRuntime

_FLAG = os.environ.get("SUDDEN_DEATH_FILE", "")
_PART_BYTES = 4096  # direct writes must be aligned
_BLOCK_S = 1000.0

_measured = AgentRuntime.restore_s


def _restore_s(self: AgentRuntime, num_blocks: float, depth_blocks: float = 0.0) -> float:
    return _BLOCK_S * num_blocks if _measured(self, num_blocks, depth_blocks) > 0.0 else 0.0


def _mortal(name: str, call: Callable[..., int]) -> Callable[..., int]:
    def mortal(descriptor: int, parts: list[Any], *rest: Any) -> int:
        flag = Path(_FLAG)
        if flag.exists() and flag.read_text(encoding="utf-8") == name:
            call(descriptor, [memoryview(parts[0])[:_PART_BYTES]], *rest)
            os.kill(os.getpid(), signal.SIGKILL)
        return call(descriptor, parts, *rest)

    return mortal


AgentRuntime.restore_s = _restore_s  # type: ignore[method-assign, assignment]
if _FLAG:
    os.writev = _mortal("writev", os.writev)
    os.preadv = _mortal("preadv", os.preadv)
