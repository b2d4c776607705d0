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


@pytest.mark.parametrize(("suffix", "compress"), [("xz", lzma.compress), ("gz", gzip.compress)])
def test_compressed_files_read_like_plain_ones(
    call: Any, write_trace: Any, suffix: Any, compress: Any
) -> None:
    plain = write_trace([call(0, [1, 2])])
    packed = plain.with_name(f"b.json.{suffix}")
    packed.write_bytes(compress(plain.read_bytes()))
    assert next(read_sessions(packed)).turns == next(read_sessions(plain)).turns


def test_a_directory_is_read_by_name_and_other_files_are_left_alone(
    call: Any, write_trace: Any, tmp_path: Path
) -> None:
    for name in ("b.json", "a.json"):
        write_trace([call(0, [1])], name)
    (tmp_path / "README.md").write_text("no trace")
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


def test_the_report_carries_the_digest_of_the_stored_bytes(call: Any, write_trace: Any) -> None:
    reports: list[FileReport] = []
    path = write_trace([call(0, [1])])
    list(read_sessions(path, on_file=reports.append))
    assert reports[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reports[0].num_sessions == 1


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file or directory"):
        list(read_sessions(tmp_path / "nothing"))


def test_an_empty_directory_is_an_error_that_names_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no trace file.*\.json\.xz"):
        trace_files(tmp_path)


def test_an_unknown_suffix_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
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
