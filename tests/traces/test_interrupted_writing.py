"""Atomic outputs: a killed or failing writer leaves the previous file."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError
from holdfast.traces.io import trace_files
from holdfast.traces.storage import new_directory, new_file

_ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from holdfast.traces.conversion import write_sessions
from holdfast.traces.record import Session, Turn

def sessions():
    for number in count():
        if number == 300:
            print("on its way", flush=True)
        yield Session(f"s{number}", 64, (Turn(0.0, 640, 1, tuple(range(10))),), "")

write_sessions(sessions(), Path(sys.argv[1]), sys.argv[2], None)
"""

_LIMITED = """
import resource
import sys
sys.dont_write_bytecode = True  # the limit would cut the imported modules' .pyc files
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from holdfast.cli.main import main
main(sys.argv[1:])
"""


def kill_while_writing(output: Path, format_name: str) -> None:
    """Start a process that writes endless sessions, and kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(output), format_name], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on its way\n"
        process.kill()
    assert process.returncode < 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("format_name", ["holdfast", "weka"])
def test_killed_writer_leaves_previous_file(tmp_path: Path, name: str, format_name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"before")
    kill_while_writing(path, format_name)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2
    assert trace_files(tmp_path) == (path,)


def test_killed_directory_writer_leaves_no_trace_file(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(b"{}")
    kill_while_writing(tmp_path / "new", "weka")
    assert not (tmp_path / "new").exists()
    assert any(tmp_path.rglob("trace_0000.json"))
    assert trace_files(tmp_path) == (other,)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz"])
def test_failed_write_leaves_previous_file(tmp_path: Path, write_lines: Any, name: str) -> None:
    """A limit on file size simulates a full disk."""
    rng = random.Random(0)
    arrivals = (
        {"timestamp": n, "input_length": 512, "output_length": rng.randrange(10**7), "hash_ids": []}
        for n in range(1500)
    )
    source = write_lines("source.jsonl", *arrivals)
    output = tmp_path / "out" / name
    output.parent.mkdir()
    output.write_bytes(b"before")
    done = subprocess.run(
        [
            *(sys.executable, "-c", _LIMITED, "traces", "convert", str(source)),
            *("--to", "weka", "--output", str(output)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{output}: cannot be written: File too large" in done.stderr
    assert output.read_bytes() == b"before"
    assert list(output.parent.iterdir()) == [output]


def test_full_disk_at_fsync_leaves_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.jsonl"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    expected = r"a\.jsonl: cannot be written: No space left"
    with pytest.raises(ConfigError, match=expected), new_file(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_no_directory(tmp_path: Path) -> None:
    expected = "d: cannot be written: No space left"
    with pytest.raises(ConfigError, match=expected), new_directory(tmp_path / "d") as directory:
        (directory / "a.json").write_bytes(b"a")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_new_file_replaces_target_of_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a.jsonl", tmp_path / "a.jsonl"
    target.parent.mkdir()
    target.write_bytes(b"before")
    link.symlink_to(target)
    with new_file(link) as file:
        file.write(b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_device_written_not_replaced() -> None:
    expected = "/dev/full: cannot be written: No space left"
    with pytest.raises(ConfigError, match=expected), new_file(Path("/dev/full")) as file:
        file.write(b"a")
    assert Path("/dev/full").is_char_device()
