"""Builders of trace files and sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.traces.record import Session, Turn

CallBuilder = Callable[..., dict[str, Any]]
FileWriter = Callable[..., Path]


@pytest.fixture
def call() -> CallBuilder:
    def build(t: float, hash_ids: Sequence[int], **fields: Any) -> dict[str, Any]:
        return {
            "t": t,
            "type": "s",
            "in": 64 * len(hash_ids) + 10,
            "out": 5,
            "hash_ids": list(hash_ids),
            "stop": "tool_use",
            "api_time": 2.0,
            "think_time": 0.0,
        } | fields

    return build


@pytest.fixture
def write_trace(tmp_path: Path) -> FileWriter:
    def write(requests: Sequence[Any], name: str = "a.json", **fields: Any) -> Path:
        document = {
            "id": name.removesuffix(".json"),
            "block_size": 64,
            "hash_id_scope": "global",
            "requests": list(requests),
        } | fields
        path = tmp_path / name
        path.write_bytes(msgspec.json.encode(document))
        return path

    return write


@pytest.fixture
def session() -> Callable[..., Session]:
    def build(*turns: Turn, session_id: str = "a", block_size_tokens: int = 64) -> Session:
        return Session(session_id, block_size_tokens, turns, "test")

    return build
