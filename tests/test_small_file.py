"""Reading ends for files of every kind that an operator names."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from holdfast.config import load_config
from holdfast.errors import ConfigError
from holdfast.pool.directory import PoolDirectory
from holdfast.sim.profile_file import load_profile
from holdfast.small_file import read_small_text


def test_text_of_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("é\n", encoding="utf-8")
    assert read_small_text(tmp_path / "file") == "é\n"
    (tmp_path / "empty").touch()
    assert read_small_text(tmp_path / "empty") == ""


def test_pipe_with_a_writer_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader, writer = os.pipe()
    text = "x" * 100_000  # more than a pipe holds

    def write() -> None:
        with os.fdopen(writer, "w") as file:
            file.write(text)

    writing = threading.Thread(target=write)
    writing.start()
    assert read_small_text(Path(f"/dev/fd/{reader}")) == text
    writing.join()
    os.close(reader)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "pipe", "directory", "large", "none"])
def test_other_files_are_errors_without_waiting(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    elif name == "directory":
        path.mkdir()
    elif name == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(OSError) as caught:
        read_small_text(path)
    assert caught.value.strerror
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, {})


def test_profiles_and_pools_never_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "profile.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile(tmp_path / "profile.toml")
    os.mkfifo(tmp_path / "holdfast-pool.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        PoolDirectory.make(tmp_path)
