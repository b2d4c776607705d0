"""The fingerprint of a model's weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast.pool.weights import weights_fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (model / name).write_bytes(os.urandom(1 << 20))
    return model


def test_copy_has_the_same_fingerprint_at_another_time(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    os.utime(copy / "model-1.safetensors", (0, 0))
    assert weights_fingerprint(copy) == weights_fingerprint(model) is not None


def test_other_weights_change_the_fingerprint(model: Path) -> None:
    before = weights_fingerprint(model)
    (model / "model-2.safetensors").write_bytes(os.urandom(1 << 20))
    assert weights_fingerprint(model) != before


def test_change_of_one_stretch_changes_the_fingerprint(model: Path) -> None:
    before = weights_fingerprint(model)
    with (model / "model-1.safetensors").open("r+b") as file:
        file.seek(1 << 19)
        file.write(bytes(1 << 15))
    assert weights_fingerprint(model) != before


def test_another_config_changes_the_fingerprint(model: Path) -> None:
    before = weights_fingerprint(model)
    (model / "config.json").write_text('{"rope_theta": 1}', encoding="utf-8")
    assert weights_fingerprint(model) != before


def test_other_files_do_not_change_the_fingerprint(model: Path) -> None:
    before = weights_fingerprint(model)
    (model / "README.md").write_text("new", encoding="utf-8")
    assert weights_fingerprint(model) == before


def test_model_may_be_one_file(model: Path) -> None:
    path = model / "model-1.safetensors"
    before = weights_fingerprint(path)
    path.write_bytes(b"")
    assert None not in (before, weights_fingerprint(path))
    assert weights_fingerprint(path) != before


def test_no_fingerprint_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert weights_fingerprint(tmp_path) is None
    assert weights_fingerprint(tmp_path / "missing") is None
