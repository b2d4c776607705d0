"""What was learned, from one start of the engine to the next."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from holdfast.predict.features import GapFeatures
from holdfast.predict.learned_file import LearnedFile
from holdfast.predict.return_time import ReturnTimeModel

SHELL = GapFeatures("shell", "Bash", "git")


def taught(gap_s: float) -> ReturnTimeModel:
    model = ReturnTimeModel()
    for _ in range(50):
        model.observe(SHELL, gap_s)
    return model


def median_s(model: ReturnTimeModel | None) -> float:
    assert model is not None
    return model.residual_quantile_s(SHELL, 0.0, 0.5)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    assert median_s(LearnedFile(path).load()) == pytest.approx(median_s(taught(7.0)))
    assert [file.name for file in path.parent.iterdir()] == ["learned.bin"]


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert LearnedFile(tmp_path / "none").load() is None


@pytest.mark.parametrize("damage", [b"", b"not it", b"\x81", None])
def test_a_damaged_file_is_set_aside_and_said(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.bin"
    LearnedFile(path).save(taught(7.0))
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert LearnedFile(path).load() is None
    assert "damaged" in caplog.text and str(path) in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["learned.bin.damaged"]


def test_a_file_that_cannot_be_written_is_said_once_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    learned = LearnedFile(tmp_path / "file" / "learned.bin")
    learned.save(taught(1.0))
    learned.save(taught(1.0))
    assert caplog.text.count("cannot be written") == 1
    assert learned.load() is None


def test_it_is_saved_every_few_minutes_and_not_more_often(tmp_path: Path) -> None:
    learned = LearnedFile(tmp_path / "learned.bin")

    def save_at(now_s: float, gap_s: float) -> float:
        learned.save_if_due(taught(gap_s), now_s)
        for thread in threading.enumerate():
            if thread.name == "holdfast-learned":
                thread.join()
        return median_s(learned.load())

    first = save_at(0.0, 1.0)
    assert save_at(299.0, 50.0) == first
    assert save_at(301.0, 50.0) > 10 * first
