"""Every reader on damaged input yields sessions or an error that names the file."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traces.text_samples import TEXT_SAMPLES, written

from holdfast.errors import TraceError
from holdfast.traces.formats.canonical import SCHEMA
from holdfast.traces.formats.registry import READERS
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session


def lines(*rows: Any) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


_WEKA = {
    "id": "w",
    "block_size": 64,
    "requests": [
        {"t": 0, "type": "s", "model": "m", "in": 128, "out": 1, "hash_ids": [1, 2], "stop": "x"},
        {
            "t": 1,
            "type": "subagent",
            "agent_id": "x",
            "subagent_type": "Explore",
            "requests": [{"t": 1, "type": "n", "in": 64, "out": 1, "hash_ids": [3]}],
        },
        {"t": 2, "type": "n", "in": 64, "out": 1, "hash_ids": [1], "think_time": 1, "api_time": 2},
    ],
}
_AGENT = {"session_id": "main", "parent_session_id": None, "input_trigger": "user"}
_REQUEST = {
    "request_id": "r",
    "model": "m",
    "input_tokens": 9,
    "output_tokens": 2,
    "cached_tokens": 3,
    "request_received_ms": 10,
    "total_time_ms": 5,
    "finish_reason_metadata": {"finish_reason": "tool_calls", "tool_calls": [{"name": "Bash"}]},
    "replay": {"trace_block_size": 4, "input_length": 9, "input_sequence_hashes": [1, 2, 3]},
}
_EVENT = {"schema": "dynamo.request.trace.v1", "event_time_unix_ms": 20, "agent_context": _AGENT}
_TURN = {"record": "session", "session": "a", "block_size_tokens": 4}

SAMPLES: dict[str, tuple[str, bytes]] = {
    "Holdfast": (
        "jsonl",
        lines(
            {"record": "trace", "schema": SCHEMA},
            _TURN | {"turns": [{"prompt_tokens": 9, "new_blocks": [[0, 2]]}]},
            _TURN
            | {
                "session": "b",
                "parent": "a",
                "turns": [
                    {"prompt_tokens": 4, "new_blocks": [[0, 1]], "tools": [{"name": "x"}]},
                    {"prompt_tokens": 8, "shared_tokens": 4, "from_turn": 0, "gap_s": 1.5},
                ],
                "events": [{"kind": "fork", "turn": 1}],
            },
            {"record": "end", "num_sessions": 2, "num_turns": 3},
        ),
    ),
    "WEKA": ("json", json.dumps(_WEKA, indent=1).encode()),
    "WEKA lines": ("jsonl", lines(_WEKA, _WEKA | {"id": "v", "hash_id_scope": "global"})),
    "coding agents": (
        "jsonl",
        lines(
            *(
                {
                    "src": "s",
                    "session": "1",
                    "agent": "main",
                    "turn": turn,
                    "t": 9.5 * turn,
                    "model": "m",
                    "trigger": "user",
                    "prompt_tokens": 70,
                    "output_tokens": 1,
                    "prefix_tokens": 64,
                    "latency_s": 1,
                    "tools": ["Bash"],
                    "tool_ids": ["x"],
                }
                for turn in range(3)
            )
        ),
    ),
    "ChatDev": (
        "jsonl",
        lines(
            *(
                {"s": "p", "i": i, "phase": "a", "pair": ["x", "y"], "in": 20, "out": 1}
                for i in (0, 1)
            )
        ),
    ),
    "agentic Mooncake": (
        "jsonl",
        lines(
            {"request_id": "a", "session_id": "s", "input_length": 20, "output_length": 1}
            | {"hash_ids": [1, 2], "timestamp": 0},
            {"request_id": "b", "session_id": "s", "input_length": 30, "output_length": 1}
            | {
                "hash_ids": [1, 3],
                "wait_for": ["a"],
                "delay": 5,
                "tool_events": [{"tool_class": "x"}],
            },
        ),
    ),
    "agentic Mooncake 2": (
        "jsonl",
        lines(
            {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 16}
            | {"hash_id_scope": "local"},
            {"request_id": "a", "play_id": "p", "session_id": "s", "model": "m", "input_length": 20}
            | {"output_length": 1, "hash_ids": [1, 2], "not_before_ms": 0.0, "dependencies": []},
            {"request_id": "b", "play_id": "p", "session_id": "t", "model": "m", "input_length": 20}
            | {"output_length": 1, "hash_ids": [1, 2], "not_before_ms": 0.0}
            | {"dependencies": [{"request_id": "a", "delay_ms": 2.0}]},
        ),
    ),
    "Mooncake": (
        "jsonl",
        lines(
            {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [0]},
            {"timestamp": 5, "input_length": 600, "output_length": 1, "hash_ids": [0, 1]},
        ),
    ),
    "Dynamo": (
        "jsonl",
        lines(
            {"timestamp": 1, "event": _EVENT | {"event_type": "request_end", "request": _REQUEST}},
            _EVENT | {"event_type": "tool_end", "tool": {"tool_class": "x", "duration_ms": 2}},
            _EVENT
            | {"event_type": "request_end", "agent_context": {"session_id": "x"}}
            | {"request": _REQUEST | {"request_id": "q"}},
        ),
    ),
    "Bailian": (
        "jsonl",
        lines(
            *(
                {"chat_id": n, "parent_chat_id": n - 1, "timestamp": 0.5 * n, "type": "text"}
                | {"input_length": 40, "output_length": 2, "turn": 1, "hash_ids": [1, 2, 3]}
                for n in (7, 8, 9)
            )
        ),
    ),
    "TraceLab": (
        "jsonl",
        lines(
            *(
                {
                    "session_id": "c:1",
                    "round_index": n,
                    "input_tokens_total": 70,
                    "prefix_tokens": 64,
                }
                | {"newly_append_tokens": 6, "output_tokens": 2, "model": "m", "provider": "c"}
                | {
                    "timing_events": [
                        {"event_type": "text", "timestamp": f"2026-01-01T00:00:0{n}Z"}
                    ]
                }
                | {"tools": [{"tool_name": "Bash", "emitted_at": f"2026-01-01T00:00:0{n}Z"}]}
                for n in (0, 1)
            )
        ),
    ),
    "decision log": (
        "jsonl",
        lines(
            {"time_s": 1.0, "event": "turn_arrived", "request": "r", "session": 1}
            | {"prompt_tokens": 70, "resident_blocks": 1, "missing_blocks": 3},
            {"time_s": 2.0, "event": "turn_ended", "request": "r", "session": 1}
            | {"output_tokens": 3, "kind": "shell", "tool": "Bash"},
        ),
    ),
    "replay records": (
        "jsonl",
        lines(
            {"policy": "holdfast", "session_id": "a", "turn_index": 0, "sent_s": 1.0}
            | {"first_token_s": 1.5, "last_token_s": 2.0, "prompt_tokens": 70, "output_tokens": 2}
            | {"appended_tokens": 70, "first_seen_tokens": 70, "cached_tokens": None},
        ),
    ),
    **{name: (suffix, written(build())) for name, (suffix, build) in TEXT_SAMPLES.items()},
}
NAMES = sorted(SAMPLES)
_JUNK = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(
        ["NaN", "Infinity", "-1", "1e999", "-0.0", "null", "true", '""', "[]", "{}", "[[1]]"]
    ),
    st.sampled_from(["9" * 400, '"\\ud800"', "[" * 3000, '{"event":' * 3000, "1e11", "4294967296"]),
)


def read(content: bytes, suffix: str, **options: Any) -> list[Session]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / f"a.{suffix}"
        path.write_bytes(content)
        return list(read_sessions(path, **options))


def check(content: bytes, suffix: str) -> None:
    """Check that reading raises only errors of the file, and none with `on_skipped`."""
    try:
        read(content, suffix)
    except TraceError as error:
        assert f"a.{suffix}" in str(error)
    assert_sound(read(content, suffix, on_skipped=lambda _: None))


def assert_sound(sessions: Iterable[Session]) -> None:
    for session in sessions:
        assert session.turns
        for turn in session.turns:
            assert 0 <= turn.gap_s < 1e13
            assert len(turn.block_ids) * session.block_size_tokens <= max(
                turn.prompt_tokens, session.block_size_tokens
            )
        places = [event.turn_index for event in session.events]
        assert places == sorted(places)
        assert all(0 <= place <= len(session.turns) for place in places)
        assert all(0 <= (event.after_s or 0) < 1e13 for event in session.events)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_each_format_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    suffix, content = SAMPLES[name]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    reports: list[FileReport] = []
    sessions = list(read_sessions(path, on_file=reports.append))
    assert reports[0].format_name == name.removesuffix(" 2").removesuffix(" lines")
    assert_sound(sessions)


def test_every_format_has_a_sample() -> None:
    assert {reader.name for reader in READERS} <= set(SAMPLES)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_files_cut_or_damaged_anywhere(name: str, data: Any) -> None:
    suffix, content = SAMPLES[name]
    at = data.draw(st.integers(0, len(content)))
    hit = data.draw(st.binary(max_size=4) | st.sampled_from([b"\xff\xfe", b"\x00", b"\n", b"\r\n"]))
    keeps_rest = data.draw(st.booleans())
    check(content[:at] + hit + (content[at + 1 :] if keeps_rest else b""), suffix)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_values_of_other_types_or_out_of_bounds(name: str, data: Any) -> None:
    suffix, content = SAMPLES[name]
    tokens = [b'"', *(str(digit).encode() for digit in range(10)), b"[", b"{"]
    places = [at for at in range(len(content)) if content[at : at + 1] in tokens]
    at = data.draw(st.sampled_from(places))
    end = min(
        (found for stop in b",]}\n" if (found := content.find(bytes([stop]), at + 1)) > 0),
        default=len(content),
    )
    check(content[:at] + data.draw(_JUNK).encode() + content[end:], suffix)


@given(st.permutations(NAMES), st.data())
@settings(max_examples=100, deadline=None)
def test_lines_of_several_formats_in_one_file(names: list[str], data: Any) -> None:
    mixed = [line for name in names[:3] for line in SAMPLES[name][1].splitlines(keepends=True)]
    suffix = data.draw(st.sampled_from(["jsonl", "json"]))
    check(b"".join(data.draw(st.permutations(mixed))), suffix)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_lines_that_are_missing_repeated_or_out_of_order(name: str, data: Any) -> None:
    suffix, content = SAMPLES[name]
    rows = content.splitlines(keepends=True)
    check(b"".join(data.draw(st.lists(st.sampled_from(rows), max_size=6))), suffix)


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("zst", zstd.compress)]
)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_compression(name: str, suffix: str, compress: Any) -> None:
    kind, content = SAMPLES[name]
    stored = compress(content)
    for damaged in (
        b"",
        stored[:-3],
        stored[: len(stored) // 2],
        stored[:8] + b"\xff" + stored[9:],
    ):
        check(damaged, f"{kind}.{suffix}")


@pytest.mark.parametrize("name", NAMES)
def test_skipping_a_line_keeps_the_others(name: str) -> None:
    suffix, content = SAMPLES[name]
    if suffix == "json":
        return
    head, *rest = content.splitlines(keepends=True)
    skipped: list[TraceError] = []
    sessions = read(b"".join([head, b"{]\n", *rest]), suffix, on_skipped=skipped.append)
    assert skipped
    assert "line 2" in str(skipped[0])
    assert [one.session_id for one in sessions] == [
        one.session_id.replace("-3", "-2") for one in read(content, suffix)
    ] or name == "Mooncake"
