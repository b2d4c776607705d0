from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.core.decision_log import DecisionLog


def test_records_are_json_lines_in_order(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    for i in range(100):
        log.write("evicted", float(i), num_blocks=i)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["num_blocks"] for line in lines] == list(range(100))
    assert lines[0] == {"time_s": 0.0, "event": "evicted", "num_blocks": 0}


def test_processes_that_share_a_file_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from holdfast.core.decision_log import DecisionLog\n"
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


def test_a_file_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log = DecisionLog(tmp_path / "missing" / "log.jsonl")
        for i in range(10):
            log.write("evicted", float(i))
        log.close()
    assert len(caplog.records) == 1
