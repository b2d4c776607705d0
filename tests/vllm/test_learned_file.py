"""The file of learned return times."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.vllm.learned_file import LearnedFile
from holdfast.vllm.learned_model import SharedModel

SHELL = GapFeatures("shell", "Bash", "git")


def taught(gap_s: float) -> ReturnTimeModel:
    model = ReturnTimeModel()
    for _ in range(50):
        model.observe(SHELL, gap_s)
    return model


def median_s(model: ReturnTimeModel | None) -> float:
    assert model is not None
    return model.residual_quantile_s(SHELL, 0.0, 0.5)


def test_saved_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    assert median_s(LearnedFile(path).load()) == pytest.approx(median_s(taught(7.0)))
    assert [file.name for file in path.parent.iterdir()] == ["learned.bin"]


def test_missing_file_loads_nothing(tmp_path: Path) -> None:
    assert LearnedFile(tmp_path / "none").load() is None


@pytest.mark.parametrize("damage", [b"", b"not it", b"\x81", None])
def test_damaged_file_renamed_and_logged(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert LearnedFile(path).load() is None
    assert "damaged" in caplog.text and str(path) in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["learned.bin.damaged"]


def test_unwritable_file_logged_once_without_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    learned = LearnedFile(tmp_path / "file" / "learned.bin")
    learned.save(taught(1.0))
    learned.save(taught(1.0))
    assert caplog.text.count("cannot be written") == 1
    assert learned.load() is None


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str, Path], None]]:
    """Makes something that is not a learned file."""
    sockets: list[socket.socket] = []

    def make(what: str, path: Path) -> None:
        if what == "pipe":
            os.mkfifo(path)
        elif what == "directory":
            path.mkdir()
        elif what == "socket":
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[0].bind(str(path))
        elif what == "large":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        else:
            path.symlink_to(f"/dev/{what}")

    yield make
    for one in sockets:
        one.close()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pipe", "a named pipe"),
        ("directory", "a directory"),
        ("socket", "a socket"),
        ("null", "a character device"),
        ("zero", "a character device"),
        ("large", "is larger than"),
    ],
)
def test_irregular_file_refused_and_unchanged(
    what: str,
    said: str,
    made: Callable[[str, Path], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "learned.bin"
    made(what, path)
    before = path.stat()
    learned = LearnedFile(path)
    learned.start().observe(SHELL, 7.0)
    learned.keep()
    learned.close()
    learned.save(taught(7.0))
    after = path.stat()
    assert (after.st_mode, after.st_rdev, after.st_size) == (
        before.st_mode,
        before.st_rdev,
        before.st_size,
    )
    assert [file.name for file in tmp_path.iterdir()] == ["learned.bin"]
    assert len(caplog.records) == 1
    assert said in caplog.text and "HOLDFAST_LEARNED_FILE" in caplog.text


def test_unwritable_directory_logged_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    LearnedFile(tmp_path / "learned.bin").save(taught(7.0))
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    assert median_s(LearnedFile(tmp_path / "learned.bin").start()) > 1.0
    LearnedFile(tmp_path / "new" / "learned.bin").start()
    assert caplog.text.count("cannot be written: its directory") == 2


def test_root_directory_refused_by_every_engine(caplog: pytest.LogCaptureFixture) -> None:
    for rank in (0, 1):
        LearnedFile(Path("/"), rank).start()
    assert caplog.text.count("is a directory") == 2


def test_device_replacing_the_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    learned = LearnedFile(path)
    learned.start()
    path.symlink_to("/dev/null")
    learned.save(taught(7.0))
    assert path.is_symlink() and path.is_char_device()


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "learned.bin"
    path.symlink_to(tmp_path / "data" / "real.bin")
    LearnedFile(path).save(taught(7.0))
    assert path.is_symlink()
    assert median_s(LearnedFile(tmp_path / "data" / "real.bin").load()) > 0


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    content = path.read_bytes()
    for at in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert LearnedFile(path).load() is None, at
    assert (tmp_path / "learned.bin.damaged").exists()


def test_file_without_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    path.write_bytes(taught(7.0).to_bytes())
    assert median_s(LearnedFile(path).load()) == pytest.approx(median_s(taught(7.0)))


def test_partial_file_of_a_killed_engine_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    (tmp_path / ".learned.bin.partial").write_bytes(b"half")
    LearnedFile(path).save(taught(7.0))
    assert [file.name for file in tmp_path.iterdir()] == ["learned.bin"]


def test_full_disk_keeps_the_last_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "learned.bin"
    learned = LearnedFile(path)
    learned.save(taught(7.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        learned.save(taught(1.0))
    assert "No space left" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["learned.bin"]
    assert median_s(LearnedFile(path).load()) == pytest.approx(median_s(taught(7.0)))


def kept(learned: LearnedFile) -> SharedModel:
    model = learned.start()
    learned.keep()
    return model


def test_model_of_an_idle_engine_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.vllm.learned_file._SAVE_INTERVAL_S", 0.01)
    path = tmp_path / "learned.bin"
    learned = LearnedFile(path)
    kept(learned).observe(SHELL, 7.0)
    while not path.exists():
        time.sleep(0.01)
    learned.close()


def test_saved_at_close_and_only_after_changes(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    learned = LearnedFile(path)
    kept(learned).observe(SHELL, 7.0)
    learned.close()
    before = path.stat()
    again = LearnedFile(path)
    kept(again)
    again.close()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


_ENGINE = """
import signal, sys, time
from pathlib import Path
from holdfast.predict.features import GapFeatures
from holdfast.vllm.learned_file import LearnedFile
from holdfast.vllm.learned_model import SharedModel
signal.signal(signal.SIGTERM, lambda *_: print("its own", flush=True))
learned = LearnedFile(Path(sys.argv[1]))
learned.start().observe(GapFeatures("shell"), 7.0)
learned.keep()
print("ready", flush=True)
while True:
    time.sleep(3600)
"""


def test_signal_saves_at_once_and_calls_old_handler(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    command = [sys.executable, "-c", _ENGINE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        engine.send_signal(signal.SIGTERM)
        assert engine.stdout.readline() == "its own\n"
        while not path.exists():
            time.sleep(0.01)
        engine.kill()
    assert median_s(LearnedFile(path).load()) > 0


def test_engines_start_from_the_first_engines_file(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    second = LearnedFile(path, rank=1)
    assert median_s(second.load()) == pytest.approx(median_s(taught(7.0)))
    second.save(taught(500.0))
    assert median_s(LearnedFile(path).load()) == pytest.approx(median_s(taught(7.0)))
    assert median_s(LearnedFile(path, rank=1).load()) == pytest.approx(median_s(taught(500.0)))


def test_two_servers_on_one_file_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = LearnedFile(tmp_path / "one"), LearnedFile(tmp_path / "one")
    for _ in range(2):
        first.save(taught(1.0))
        second.save(taught(2.0))
    assert caplog.text.count("of its own") == 2  # each logs it once


def test_one_thread_saves_while_another_learns() -> None:
    model = SharedModel()

    def learn() -> None:
        for number in range(2000):
            model.observe(GapFeatures("shell", f"t{number}"), 1.0)

    learning = threading.Thread(target=learn)
    learning.start()
    while learning.is_alive():
        SharedModel.from_bytes(model.to_bytes())
    assert model.num_changes == 2000


def test_agents_calls_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    model = SharedModel()
    for _ in range(50):
        model.observe(SHELL, 7.0)
    workload = model.agent_calls.of("t")
    for number in range(30):
        workload.called("w", 1 + number % 3, 10.0 * number)
    LearnedFile(path).save(model)
    loaded = LearnedFile(path).load()
    assert loaded is not None
    assert loaded.agent_calls.of("t").is_predictable
    assert median_s(loaded) == pytest.approx(median_s(model))


def test_sub_agents_runs_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    task, spawn = GapFeatures("sub_agent", "Task"), GapFeatures("sub_agent", "spawn_agent")
    model = SharedModel()
    for _ in range(30):
        model.agent_runs.observe_run(task, 70.0)
        model.agent_runs.observe_join(task, 2.0)
        model.agent_runs.observe_early_return(spawn)
    assert model.num_changes == 90
    LearnedFile(path).save(model)
    loaded = LearnedFile(path).load()
    assert loaded is not None and loaded.num_changes == 0
    for runs in (loaded.agent_runs, model.agent_runs):
        assert runs.rest_s(task, (0.0, 0.0), 1) == pytest.approx(70.0, rel=0.2)
        assert runs.lag_s(task) == pytest.approx(2.0, rel=0.2)
        assert runs.is_join(task) and not runs.is_join(spawn)
    assert loaded.agent_runs.to_bytes() == model.agent_runs.to_bytes()


def test_file_of_return_times_alone_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    path.write_bytes(ReturnTimeModel.to_bytes(taught(7.0)))
    loaded = LearnedFile(path).load()
    assert median_s(loaded) == pytest.approx(median_s(taught(7.0)))
    assert loaded is not None and not list(loaded.agent_calls)
