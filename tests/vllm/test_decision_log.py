from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.vllm.decision_log import DecisionLog


def test_records_are_json_lines_in_order(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    for i in range(100):
        log.write("evicted", float(i), num_blocks=i)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["num_blocks"] for line in lines] == list(range(100))
    assert lines[0] == {"time_s": 0.0, "event": "evicted", "num_blocks": 0}


def test_processes_on_one_file_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from holdfast.vllm.decision_log import DecisionLog\n"
        "log = DecisionLog(Path(sys.argv[1]), engine=int(sys.argv[2]))\n"
        "for i in range(3000):\n"
        "    log.write('evicted', float(i), sessions=list(range(i % 300)))\n"
        "log._pending.put(None)\n"
        "log._thread.join()\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), str(engine)])
        for engine in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for engine in range(3):
        times = [line["time_s"] for line in lines if line["engine"] == engine]
        assert times == [float(i) for i in range(3000)]


def test_unwritable_file_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log = DecisionLog(tmp_path / "missing" / "log.jsonl")
        for i in range(10):
            log.write("evicted", float(i))
        log.close()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pipe", "no process reads"),
        ("directory", "Is a directory"),
        ("/dev/full", "No space left"),
    ],
)
def test_unwritable_path_logged_and_never_waited_for(
    what: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / what  # an absolute name replaces the directory's
    if what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    log = DecisionLog(path)
    for i in range(10):
        log.write("evicted", float(i))
    log.close()
    assert not log._thread.is_alive()
    assert len(caplog.records) == 1
    assert str(path) in caplog.text and said in caplog.text


def test_pipe_with_a_reader_is_written(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        log = DecisionLog(path)
        log.write("evicted", 1.0)
        log.close()
        assert json.loads(reader.read()) == {"time_s": 1.0, "event": "evicted"}
