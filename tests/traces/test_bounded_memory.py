"""Memory of reading is constant in the rows of a file, as documented."""

from __future__ import annotations

import errno
import gc
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import TraceError
from holdfast.traces.conversion import write_sessions
from holdfast.traces.formats import row_spool
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.io import read_sessions

_TOKENS = 100_000
_HASHES = list(range(1500))


def _mooncake(num: int) -> Iterator[dict[str, Any]]:
    for n in range(2 * num):
        yield {
            "timestamp": n,
            "input_length": 512 * 1500,
            "output_length": 1,
            "hash_ids": _HASHES,
        }


def _agentic_mooncake(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            yield {
                "request_id": f"{n}:{turn}",
                "session_id": f"{n}",
                "input_length": 64 * 1500,
                "output_length": 1,
                "hash_ids": _HASHES,
                "wait_for": [f"{n}:{turn - 1}"] if turn else [],
            }


def _dynamo(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            request = {
                "request_id": f"{n}:{turn}",
                "request_received_ms": 1000.0 * turn + n,
                "total_time_ms": 5.0,
                "replay": {
                    "trace_block_size": 64,
                    "input_length": 64 * 1500,
                    "input_sequence_hashes": _HASHES,
                },
            }
            yield {
                "schema": "dynamo.request.trace.v1",
                "event_type": "request_end",
                "agent_context": {"session_id": f"{n}"},
                "request": request,
            }


def _bailian(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            yield {
                "chat_id": num * turn + n,
                "parent_chat_id": n if turn else -1,
                "timestamp": 10.0 * turn + n / 1000,
                "input_length": 16 * 1500,
                "output_length": 1,
                "hash_ids": _HASHES,
            }


def _tracelab(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            yield {
                "session_id": f"{n}",
                "round_index": turn,
                "input_tokens_total": _TOKENS,
                "prefix_tokens": 0,
                "output_tokens": 1,
            }


def _decision_log(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            named = {"time_s": turn * num + n, "request": f"{turn}:{n}", "session": n}
            yield {**named, "event": "turn_arrived", "prompt_tokens": _TOKENS}
            yield {**named, "event": "turn_ended", "output_tokens": 1}


def _replay_records(num: int) -> Iterator[dict[str, Any]]:
    for turn in range(2):
        for n in range(num):
            yield {
                "policy": "p",
                "session_id": f"{n}",
                "turn_index": turn,
                "sent_s": turn,
                "last_token_s": turn + 0.5,
                "prompt_tokens": _TOKENS,
                "appended_tokens": _TOKENS,
                "first_seen_tokens": _TOKENS,
                "output_tokens": 1,
            }


def _peak_of_converting(path: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Peak memory while a file is converted to Holdfast's format."""
    with path.open("wb") as file:
        for line in lines:
            file.write(msgspec.json.encode(line))
            file.write(b"\n")
    gc.collect()
    tracemalloc.start()
    try:
        write_sessions(read_sessions(path), path.with_name("out.jsonl"), "holdfast", None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "rows",
    [
        *(_mooncake, _agentic_mooncake, _dynamo, _bailian, _tracelab),
        *(_decision_log, _replay_records),
    ],
)
def test_memory_constant_in_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Callable[[int], Iterator[Any]]
) -> None:
    """Two long prompts a session; all first prompts precede all second ones."""
    monkeypatch.setattr(row_spool, "_MEMORY_BYTES", 1 << 16)
    path = tmp_path / "a.jsonl"
    _peak_of_converting(path, rows(2))
    few, many = (_peak_of_converting(path, rows(num)) for num in (8, 32))
    assert many < 1.3 * few


def test_spool_reads_rows_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_spool, "_MEMORY_BYTES", 100)
    spool = RowSpool("a", dict[str, int])
    positions = [spool.add({"n": n}) for n in range(50)]
    assert spool.read(reversed(positions)) == [{"n": n} for n in reversed(range(50))]
    assert spool.read([]) == []


def test_spool_closes_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_spool, "_MEMORY_BYTES", 1)
    spool = RowSpool("a", int)
    spool.add(10)
    # pytest turns the warning about an unclosed file into an error.
    del spool
    gc.collect()


def test_full_disk_error_of_spool_hints_at_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, _: int) -> None:
            pass

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            pass

    monkeypatch.setattr(row_spool, "SpooledTemporaryFile", Full)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in _bailian(1)))
    expected = r"a\.jsonl: its rows cannot be written to a temporary file: No space"
    with pytest.raises(TraceError, match=expected) as caught:
        list(read_sessions(path))
    assert "TMPDIR" in (caught.value.hint or "")
