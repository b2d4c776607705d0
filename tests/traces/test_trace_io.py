"""Trace files on disk."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions, trace_files

_ARRIVAL = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [0]}
_REQUEST = {
    "src": "demo",
    "session": "s",
    "agent": "main",
    "turn": 0,
    "t": 0.0,
    "model": "m",
    "trigger": "user",
    "prompt_tokens": 128,
    "output_tokens": 1,
    "prefix_tokens": 0,
}


@pytest.mark.parametrize(("suffix", "compress"), [("xz", lzma.compress), ("gz", gzip.compress)])
def test_compressed_files_equal_plain_ones(
    call: Any, write_trace: Any, suffix: Any, compress: Any
) -> None:
    plain = write_trace([call(0, [1, 2])])
    packed = plain.with_name(f"b.json.{suffix}")
    packed.write_bytes(compress(plain.read_bytes()))
    assert next(read_sessions(packed)).turns == next(read_sessions(plain)).turns


def test_directory_is_read_by_name_without_other_files(
    call: Any, write_trace: Any, tmp_path: Path
) -> None:
    for name in ("b.json", "a.json"):
        write_trace([call(0, [1])], name)
    (tmp_path / "README.md").write_text("no trace")
    (tmp_path / "sessions-index.json").write_text('{"version": 1, "entries": []}')
    assert [session.session_id for session in read_sessions(tmp_path)] == ["a", "b"]


def test_a_seed_decides_the_order_of_files(call: Any, write_trace: Any, tmp_path: Path) -> None:
    names = [f"{index:02d}" for index in range(20)]
    for name in names:
        write_trace([call(0, [1])], f"{name}.json")

    def order(seed: int) -> list[str]:
        return [session.session_id for session in read_sessions(tmp_path, seed=seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == names


def test_a_file_is_opened_only_when_its_turn_comes(
    call: Any, write_trace: Any, tmp_path: Path
) -> None:
    write_trace([call(0, [1])], "a.json")
    (tmp_path / "b.json").write_text("broken")
    assert next(read_sessions(tmp_path)).session_id == "a"


def test_report_has_the_digest_of_the_stored_bytes(call: Any, write_trace: Any) -> None:
    reports: list[FileReport] = []
    path = write_trace([call(0, [1])])
    list(read_sessions(path, on_file=reports.append))
    assert reports[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reports[0].num_sessions == 1


def test_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file or directory"):
        list(read_sessions(tmp_path / "nothing"))


def test_an_empty_directory_is_an_error_that_names_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no trace file.*\.json\.xz"):
        trace_files(tmp_path)


@pytest.mark.parametrize("suffix", ["txt", "csv", "csv.gz"])
def test_unknown_suffix_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace.{suffix}"
    path.write_text("a,b")
    with pytest.raises(TraceError, match="unknown file type"):
        trace_files(path)


@pytest.mark.parametrize(("suffix", "compress"), [("xz", lzma.compress), ("gz", gzip.compress)])
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_damaged_compression_is_an_error_that_names_the_file(
    call: Any, write_trace: Any, suffix: Any, compress: Any, damage: Any
) -> None:
    path = write_trace([call(0, list(range(400)))])
    packed = path.with_name(f"p.json.{suffix}")
    data = compress(path.read_bytes())
    packed.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\x00" * 64)
    with pytest.raises(TraceError, match=rf"p\.json\.{suffix}.*damaged"):
        list(read_sessions(packed))


def test_tool_calls_are_read_with_the_requests_beside_them(write_lines: Any) -> None:
    requests = write_lines("requests.jsonl", _REQUEST)
    tools = write_lines("tools.jsonl", {"src": "a", "session": "b", "id": "c", "name": "Read"})
    assert trace_files(requests.parent) == (requests,)
    reports: list[FileReport] = []
    list(read_sessions(requests.parent, on_file=reports.append))
    assert [(report.path, report.num_sessions) for report in reports] == [(requests, 1), (tools, 0)]


def test_format_of_lines_detected_by_fields_not_by_file_name(write_lines: Any) -> None:
    path = write_lines("a.jsonl", _ARRIVAL)
    write_lines("b.jsonl", _REQUEST)
    arrival, request = read_sessions(path.parent)
    assert (arrival.block_size_tokens, request.block_size_tokens) == (512, 64)


def test_sessions_of_different_layouts_share_no_block(
    call: Any, write_trace: Any, write_lines: Any, assert_prefix_identity: Any
) -> None:
    path = write_trace([call(0, [0, 1], **{"in": 128})])
    write_lines("b.jsonl", _ARRIVAL)
    write_lines("c.jsonl", _REQUEST)
    sessions = list(read_sessions(path.parent))
    ids = [block for session in sessions for turn in session.turns for block in turn.block_ids]
    assert len(ids) == len(set(ids)) == 5
    assert_prefix_identity(sessions)


def test_later_sessions_of_a_file_are_built_only_when_iterated(write_lines: Any) -> None:
    path = write_lines("a.jsonl", _ARRIVAL, _ARRIVAL)
    reports: list[FileReport] = []
    sessions = read_sessions(path, on_file=reports.append)
    next(sessions)
    assert reports[0].num_sessions == 2


def test_blank_lines_are_ignored_but_counted(write_lines: Any) -> None:
    path = write_lines("a.jsonl", _ARRIVAL)
    path.write_bytes(path.read_bytes() + b"\n{}\n")
    with pytest.raises(TraceError, match=r"a\.jsonl: line 3: .*missing required field"):
        list(read_sessions(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1, "b": 2}', "line 1: unknown layout with the fields a, b"),
        (b"[1, 2]", "line 1: Expected `object`, got `array`"),
        (b'{"timestamp": 0', "line 1: not valid UTF-8 JSON"),
        (b'{"\xff": 1}', "line 1: not valid UTF-8 JSON"),
        (b"", "holds no line"),
    ],
    ids=["unknown", "no-object", "truncated", "not-utf8", "empty"],
)
def test_lines_of_no_known_layout_are_an_error(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)
    with pytest.raises(TraceError, match=rf"a\.jsonl: {message}"):
        list(read_sessions(path))


def test_layout_detected_by_nested_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"info": {"version": "1"}, "messages": []}')
    with pytest.raises(TraceError, match=r"unknown layout with the fields info, messages"):
        list(read_sessions(path))


def test_error_for_an_unknown_layout_lists_the_known_ones(write_lines: Any) -> None:
    with pytest.raises(TraceError) as caught:
        list(read_sessions(write_lines("a.jsonl", {"x": 1})))
    hint = caught.value.hint or ""
    assert all(name in hint for name in ("Holdfast", "Mooncake", "Claude Code", "Codex"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: data.replace(b'"think_time":0.0', b'"think_time":NaN'),
        lambda data: data.replace(b'"tool_use"', b'"\xff\xfe"'),
        lambda data: b"",
    ],
    ids=["truncated", "nan", "not-utf8", "empty"],
)
def test_broken_json_is_an_error_that_names_the_file(
    call: Any, write_trace: Any, damage: Any
) -> None:
    path = write_trace([call(0, [1])])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TraceError, match=r"a\.json.*not valid UTF-8 JSON"):
        list(read_sessions(path))
