"""Builders of trace files and sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *lines: Mapping[str, Any]) -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return path

    return write


@pytest.fixture(scope="session")
def assert_prefix_identity() -> Callable[[Iterable[Session]], None]:
    """Equal ids at a position imply equal ids before it, in all sessions of a reading."""

    def check(sessions: Iterable[Session]) -> None:
        behind: dict[int, int | None] = {}
        for session in sessions:
            for turn in session.turns:
                assert len(turn.block_ids) == turn.prompt_tokens // session.block_size_tokens
                before: int | None = None
                for block_id in turn.block_ids:
                    assert behind.setdefault(block_id, before) == before
                    before = block_id

    return check


@pytest.fixture
def session() -> Callable[..., Session]:
    def build(*turns: Turn, session_id: str = "a", block_size_tokens: int = 64) -> Session:
        return Session(session_id, block_size_tokens, turns, "test")

    return build
