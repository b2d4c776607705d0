"""Learned return times across restarts of an engine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.vllm.learned_file import LearnedFile

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

HINT = {"holdfast_turn_end": "tool:Bash git"}


def serve_pauses(rig: Rig, number: int = 5) -> None:
    for turn in range(number):
        rig.turn(f"r{turn}", "abcdefgh"[: turn + 2], xargs=HINT)


def num_observed(path: Path, rank: int = 0) -> float:
    model = LearnedFile(path, rank).load()
    return 0.0 if model is None else model.num_observed


def test_model_saved_at_shutdown_of_an_idle_engine(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    rig = make_rig(100, settings={"learned_file": path})
    serve_pauses(rig)
    rig.scheduler.shutdown()
    assert num_observed(path) == pytest.approx(rig.scheduler._runtime.returns.num_observed)
    assert num_observed(path) > 0


@pytest.mark.parametrize("what", ["null", "zero", "pipe", "directory"])
def test_requests_served_when_the_file_is_refused(
    what: str, make_rig: RigMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path("/dev") / what
    if what == "pipe":
        os.mkfifo(path := tmp_path / what)
    elif what == "directory":
        (path := tmp_path / what).mkdir()
    before = path.stat()
    rig = make_rig(100, settings={"learned_file": path})
    serve_pauses(rig)
    rig.scheduler.shutdown()
    assert all(request.is_finished() for request in rig.requests.values())
    assert rig.metrics.get("holdfast_fallbacks", 0) == 0
    assert (path.stat().st_mode, path.stat().st_ino) == (before.st_mode, before.st_ino)
    said = [record.message for record in caplog.records if "learned_file" in record.message]
    assert len(said) == 1 and str(path) in said[0] and "regular file" in said[0]


def test_engines_of_one_server_keep_their_own_files(
    make_rig: RigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "learned.bin"
    rigs = [make_rig(100, settings={"learned_file": path})]
    monkeypatch.setattr("holdfast.vllm.scheduler.engine_number", lambda _scheduler: 1)
    rigs.append(make_rig(100, settings={"learned_file": path}))
    for number, rig in enumerate(rigs, 4):
        serve_pauses(rig, number)
        rig.scheduler.shutdown()
    assert 0 < num_observed(path) < num_observed(path, rank=1)


def test_engine_number_is_the_data_parallel_rank(rig: Rig) -> None:
    from holdfast.vllm.compat import engine_number

    assert engine_number(rig.scheduler) == 0
    rig.scheduler.vllm_config.parallel_config.data_parallel_index = 3
    assert engine_number(rig.scheduler) == 3


def test_parser_takes_our_default_unless_operator_sets_it(loaded_engine: None) -> None:
    from holdfast.vllm.serve import _parser_and_command

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser, _ = _parser_and_command({"shutdown_timeout": 7})
        assert parser.parse_args(["serve", "m"]).shutdown_timeout == 7
        assert parser.parse_args(["serve", "m", "--shutdown-timeout", "9"]).shutdown_timeout == 9
