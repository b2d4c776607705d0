"""A block's file: only the block that was written is ever read."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.pool import block_file
from holdfast.pool.block_file import (
    FOOTER_BYTES,
    BlockState,
    read_block,
    verify_block,
    write_block,
)

BLOCK = bytes(range(256)) * 32
LOCATION = b"p" * 32
_CHECKED_FOOTER_BYTES = 60  # the fields and their checksum; the rest of the page is padding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "abc" / "block.bin"
    write_block(path, LOCATION, memoryview(BLOCK))
    return path


def read(
    path: Path, location: bytes = LOCATION, num_bytes: int = len(BLOCK)
) -> tuple[BlockState, bytes]:
    into = bytearray(num_bytes)
    return read_block(path, location, memoryview(into)), bytes(into)


def test_written_block_is_read(path: Path) -> None:
    assert read(path) == (BlockState.WHOLE, BLOCK)
    assert verify_block(path, LOCATION) is BlockState.WHOLE


def test_file_is_a_block_and_a_page(path: Path) -> None:
    assert path.stat().st_size == len(BLOCK) + FOOTER_BYTES
    assert path.read_bytes()[: len(BLOCK)] == BLOCK


def test_only_the_owner_can_read_a_file(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_missing_file_or_directory_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "no", tmp_path / "no" / "no", tmp_path / "file" / "no"):
        assert read(path)[0] is BlockState.MISSING


@pytest.mark.parametrize("num_lost", [1, FOOTER_BYTES, FOOTER_BYTES + 1, len(BLOCK) + FOOTER_BYTES])
def test_short_file_is_truncated(path: Path, num_lost: int) -> None:
    os.truncate(path, path.stat().st_size - num_lost)
    assert read(path)[0] is BlockState.TRUNCATED
    assert verify_block(path, LOCATION) is not BlockState.WHOLE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(BLOCK) + _CHECKED_FOOTER_BYTES - 1), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    damaged = path.with_name("damaged")
    damaged.write_bytes(content)
    assert read(damaged)[0] in (BlockState.CORRUPT, BlockState.FOREIGN)
    assert verify_block(damaged, LOCATION) in (BlockState.CORRUPT, BlockState.FOREIGN)


def test_file_of_zeros_is_foreign(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    assert read(path)[0] is BlockState.FOREIGN


def test_random_file_is_foreign(path: Path) -> None:
    path.write_bytes(os.urandom(len(BLOCK) + FOOTER_BYTES))
    assert read(path)[0] is BlockState.FOREIGN
    path.write_bytes(os.urandom(3 * len(BLOCK)))
    assert read(path)[0] is BlockState.FOREIGN


def test_block_at_another_location_is_foreign(path: Path) -> None:
    assert read(path, b"q" * 32)[0] is BlockState.FOREIGN


def test_block_of_another_size_is_not_read(path: Path) -> None:
    assert read(path, num_bytes=len(BLOCK) // 2)[0] is BlockState.FOREIGN
    assert read(path, num_bytes=len(BLOCK) * 2)[0] is BlockState.TRUNCATED


def test_old_block_expires_and_a_read_counts_as_use(path: Path) -> None:
    os.utime(path, (1000.0, 1000.0))
    into = memoryview(bytearray(len(BLOCK)))
    assert read_block(path, LOCATION, into, not_before_s=1001.0) is BlockState.EXPIRED
    assert read_block(path, LOCATION, into, not_before_s=999.0) is BlockState.WHOLE
    assert path.stat().st_mtime > 1001.0


def test_verifying_does_not_count_as_use(path: Path) -> None:
    os.utime(path, (1000.0, 1000.0))
    verify_block(path, LOCATION)
    assert path.stat().st_mtime == 1000.0


@pytest.mark.parametrize("num_bytes", [1, 1000, len(BLOCK), len(BLOCK) + 7])
def test_short_reads_are_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    full = os.preadv

    def short(descriptor: int, parts: list[memoryview], offset: int) -> int:
        left, cut = num_bytes if offset == 0 else 4096, []
        for part in parts:
            cut.append(memoryview(part)[:left])
            left -= len(cut[-1])
        read = full(descriptor, cut, offset)
        for part in cut:
            part.release()
        return read

    monkeypatch.setattr(os, "preadv", short)
    assert read(path) == (BlockState.WHOLE, BLOCK)


def test_file_that_shrinks_while_read_is_truncated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, parts, at: full(fd, [parts[0][:100]], at) if at == 0 else 0
    )
    assert read(path)[0] is BlockState.TRUNCATED


def test_second_store_replaces_the_first(path: Path) -> None:
    write_block(path, LOCATION, memoryview(BLOCK[::-1]))
    assert read(path) == (BlockState.WHOLE, BLOCK[::-1])


@contextmanager
def small_files() -> Iterator[None]:
    """Limit files to a page, as on a full disk; even those that pytest writes to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_write_to_a_full_disk_raises_and_leaves_no_file(tmp_path: Path) -> None:
    does_not_fit = pytest.raises(OSError, match=r"No space left|File too large")
    with small_files(), does_not_fit as caught:
        write_block(tmp_path / "d" / "block.bin", LOCATION, memoryview(BLOCK))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert list((tmp_path / "d").iterdir()) == []


def test_failed_write_keeps_the_old_block(path: Path) -> None:
    with small_files(), pytest.raises(OSError, match=r"No space left|File too large"):
        write_block(path, LOCATION, memoryview(BLOCK[::-1]))
    assert read(path) == (BlockState.WHOLE, BLOCK)


_KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from holdfast.pool.block_file import write_block
def die(descriptor, parts):
    os.write(descriptor, bytes(parts[0])[:100])
    os.kill(os.getpid(), signal.SIGKILL)
os.writev = die
write_block(Path(sys.argv[1]), b"p" * 32, memoryview(bytes(8192)))
"""


def test_process_killed_while_writing_leaves_unfinished_file(tmp_path: Path) -> None:
    path = tmp_path / "block.bin"
    killed = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read(path)[0] is BlockState.MISSING
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(block_file.TEMPORARY_SUFFIX)
    assert left.stat().st_size == 100


def test_collected_directory_is_made_again(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    write_block(path, LOCATION, memoryview(BLOCK))
    assert read(path)[0] is BlockState.WHOLE
