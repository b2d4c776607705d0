"""`holdfast compress train` on a tiny model: gates, what they are used for, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.bench.model import build_tiny_model
from holdfast.cli.main import cli
from holdfast.compress.gates.gate_file import read_file
from holdfast.errors import ConfigError

OPTIONS = ("--tokens", 64, "--steps", 3, "--hidden-size", 8, "--threads", 1, "--batch", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    turns = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d e"}]
    path = tmp_path / "sessions.jsonl"
    path.write_text("".join(json.dumps({"messages": turns * n}) + "\n" for n in (1, 2, 3)))
    return path


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["compress", *map(str, arguments)], catch_exceptions=False)


def test_gates_are_trained_and_then_evaluated(model: Path, sessions: Path, tmp_path: Path) -> None:
    result = _run("train", model, "--sessions", sessions, *OPTIONS, "--json", tmp_path / "o.json")
    assert result.exit_code == 0, result.output
    gates = model.with_name("tiny.rg10.safetensors")
    assert f"--methods rg10:gates={gates}" in result.output
    assert "capacity loss" in result.output
    document = json.loads((tmp_path / "o.json").read_text())
    assert document["schema"] == "holdfast.gate_training/1"
    assert len(document["losses"]) == 3
    record = read_file(gates)[1]
    assert document["gates"]["model_sha256"] == record.model_sha256
    assert (record.num_steps, record.training.batches_per_step) == (3, 2)
    assert record.shape.initial_bias == pytest.approx(5.159, abs=1e-3)  # ln 64 + 1

    evaluated = _run(
        *("eval", model, "--sessions", sessions, "--budgets", 50, "--threads", 1),
        *("--methods", f"rg10:gates={gates},random"),
    )
    assert evaluated.exit_code == 0, evaluated.output
    assert "best of 2 methods" in " ".join(evaluated.output.split())
    gates.unlink()


def test_gates_learn_from_generated_tasks(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    result = _run(
        *("train", model, "--tasks", "single,table", "--contexts", 2, "--kind", "rg"),
        *("--output", output, *OPTIONS[2:], "--tokens", 200),
    )
    assert result.exit_code == 0, result.output
    assert read_file(output)[1].shape.kind == "rg"


def test_the_same_command_goes_on_after_a_stop(
    model: Path, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.compress.gates.trainer import GateTrainer, StepLosses

    step = GateTrainer.step

    def stopped(self: GateTrainer, number: int, batches: object) -> StepLosses:
        if number == 2:
            raise KeyboardInterrupt
        return step(self, number, batches)  # type: ignore[arg-type]

    command = ("train", model, "--sessions", sessions, "--save-every", 1, *OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr(GateTrainer, "step", stopped)
        assert _run(*command, "--output", tmp_path / "a.safetensors").exit_code == 1
    result = _run(*command, "--output", tmp_path / "a.safetensors")
    assert result.exit_code == 0
    assert "going on from step 2" in " ".join(result.output.split())
    assert _run(*command, "--output", tmp_path / "b.safetensors").exit_code == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_existing_gates_are_kept(model: Path, sessions: Path, tmp_path: Path) -> None:
    output = tmp_path / "gates.safetensors"
    output.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists already"):
        _run("train", model, "--sessions", sessions, "--output", output, *OPTIONS)
    assert output.read_bytes() == b"mine"


def test_gates_of_another_file_are_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    for spelled, message in (
        (f"rg:gates={tmp_path / 'x'}", "no safetensors file"),
        ("rg", "needs gates"),
        (f"rg10:gates={tmp_path / 'none'}", "no such file of gates"),
    ):
        with pytest.raises(ConfigError, match=message):
            _run("eval", model, "--methods", spelled, "--contexts", 1)
