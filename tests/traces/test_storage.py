"""Stored files: compression and atomic writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ConfigError, TraceError
from holdfast.traces.storage import (
    COMPRESSIONS,
    new_directory,
    new_file,
    open_stored,
    stored_digest,
)

_CONTENT = bytes(range(256)) * 400


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_written_content_reads_back_compressed_by_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    with new_file(path) as file:
        file.write(_CONTENT)
    with open_stored(path) as stored:
        assert stored.read() == _CONTENT
    assert (path.read_bytes() == _CONTENT) == (suffix == "")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_equal_content_stored_as_equal_bytes(tmp_path: Path, suffix: str) -> None:
    digests = set()
    for name in ("a", "b"):
        with new_file(tmp_path / f"{name}{suffix}") as file:
            file.write(_CONTENT)
        digests.add(stored_digest(tmp_path / f"{name}{suffix}"))
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_unfinished_file_leaves_previous_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), new_file(path) as file:
        file.write(_CONTENT)
        raise KeyError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESSIONS if suffix])
@pytest.mark.parametrize("damage", ["cut", "noise", "turned"])
def test_damaged_data_error_names_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    with new_file(path) as file:
        file.write(_CONTENT)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut": data[:-1],
            "noise": b"\x00" * 64,
            "turned": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
        }[damage]
    )
    with pytest.raises(TraceError, match=rf"a\.jsonl{suffix}: damaged"), open_stored(path) as file:
        while file.read(1000):
            pass


def test_unreadable_file_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="a: cannot be read"), open_stored(tmp_path / "a"):
        pass
    with pytest.raises(TraceError, match="a: cannot be read"):
        stored_digest(tmp_path / "a")


def test_directory_written_atomically(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_directory(tmp_path / "d") as directory:
        (directory / "a").write_bytes(b"a")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "d") as directory:
        (directory / "a").write_bytes(b"a")
    assert (tmp_path / "d" / "a").read_bytes() == b"a"
    with pytest.raises(ConfigError, match="exists"), new_directory(tmp_path / "d"):
        pass


def test_refuses_file_in_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"), new_file(tmp_path / "x" / "a"):
        pass
