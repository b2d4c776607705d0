"""Turns of a replay as JSON lines, one object for each turn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from holdfast.core.results import TurnRecord

__all__ = ["append_turns"]


def append_turns(path: Path, policy: str, turns: Iterable[TurnRecord]) -> None:
    """Append turns to a file, each with its policy; creates the file if needed."""
    encoder = msgspec.json.Encoder()
    with path.open("ab") as file:
        for turn in turns:
            row = {"policy": policy, **msgspec.structs.asdict(turn)}
            file.write(encoder.encode(row) + b"\n")
