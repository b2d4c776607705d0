"""Training of gates: resuming, refusals, and that it does what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.compress.gate_cases import batch_of
from tests.compress.layers import tiny_model

from holdfast.compress.gates.batch import Batch, batch_indices, digest_of
from holdfast.compress.gates.checkpoint import TrainingRun
from holdfast.compress.gates.gate import RetentionGates, shape_for
from holdfast.compress.gates.gate_file import load_gates, read_file, write_file
from holdfast.compress.gates.gated_model import gated_logits
from holdfast.compress.gates.trainer import GateTrainer, StepLosses
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.errors import ConfigError, HoldfastError

SETTINGS = TrainingSettings(
    capacity=4, num_steps=9, learning_rate=1e-2, batches_per_step=2, warm_up_share=0.3
)
BATCHES = [batch_of(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def _run(
    model: Any, path: Path, settings: TrainingSettings = SETTINGS, **given: Any
) -> TrainingRun:
    shape = shape_for(model.config, "rg10", hidden_size=8, initial_bias=3.0)
    batches = given.pop("batches", BATCHES)
    return TrainingRun(model, given.pop("shape", shape), settings, batches, path, **given)


def _finished(run: TrainingRun, *, save_every: int = 100) -> list[StepLosses]:
    return list(run.run(save_every=save_every))


@pytest.mark.parametrize("stops", [(4,), (1, 3, 8)])
def test_interrupted_training_ends_as_an_uninterrupted_one(
    model: Any, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    whole = _finished(_run(model, tmp_path / "whole.safetensors"))
    path, parts = tmp_path / "parts.safetensors", list[StepLosses]()
    for stop in stops:
        run = _run(model, path)
        parts += _interrupted(run.run(save_every=1), stop - run.num_steps)
    last = _run(model, path)
    assert last.num_steps == stops[-1]
    parts += _finished(last)
    assert parts == whole
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert [file.name for file in tmp_path.glob("*.checkpoint")] == []


def _interrupted(steps: Iterator[StepLosses], count: int) -> list[StepLosses]:
    return list(islice(steps, count))


def test_steps_since_the_checkpoint_are_done_again(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    losses = _interrupted(_run(model, path).run(save_every=2), 5)
    again = _run(model, path)
    assert again.num_steps == 4
    assert _interrupted(again.run(save_every=2), 1) == losses[4:]
    assert not path.exists()


def test_training_brings_entries_towards_the_capacity(model: Any, tmp_path: Path) -> None:
    """Retained entries fall while the model's own answers are kept."""
    settings = msgspec.structs.replace(SETTINGS, num_steps=40, learning_rate=0.03)
    losses = _finished(_run(model, tmp_path / "gates.safetensors", settings))
    gates = load_gates(tmp_path / "gates.safetensors", model)
    ids = BATCHES[0].tokens
    untrained = _run(model, tmp_path / "x")._gates
    with torch.no_grad():
        _, counts = gated_logits(model, gates, ids, torch.tensor([0]))
        _, before = gated_logits(model, untrained, ids, torch.tensor([0]))
    assert float(before[..., -1].mean()) > 12
    assert float(counts[..., -1].mean()) < 5
    assert losses[-1].capacity < 0.1 < losses[0].capacity
    assert losses[-1].next_token < losses[0].next_token + 0.3


def test_model_is_not_trained(model: Any, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _finished(_run(model, tmp_path / "gates.safetensors"))
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gates_of_another_training_can_go_on(model: Any, tmp_path: Path) -> None:
    _finished(_run(model, tmp_path / "first.safetensors"))
    first = load_gates(tmp_path / "first.safetensors", model)
    run = _run(model, tmp_path / "second.safetensors", initial=first)
    assert all(
        tensor.equal(first.state_dict()[name]) for name, tensor in run._gates.state_dict().items()
    )


def test_gradients_of_a_steps_batches_are_averaged(model: Any) -> None:
    shape = shape_for(model.config, "rg", hidden_size=8, initial_bias=3.0)
    settings = TrainingSettings(capacity=4, num_steps=1, max_gradient_norm=1e9)
    together, stacked = RetentionGates(shape), RetentionGates(shape)
    one, two = (Batch(BATCHES[0].tokens[i : i + 1], BATCHES[0].labels[i : i + 1]) for i in (0, 1))
    first = GateTrainer(model, together, settings).step(0, [one, two])
    second = GateTrainer(model, stacked, settings).step(0, [BATCHES[0]])
    assert first.distillation == pytest.approx(second.distillation, rel=1e-5)
    assert first.next_token == pytest.approx(second.next_token, rel=1e-5)
    for left, right in zip(together.parameters(), stacked.parameters(), strict=True):
        if left.grad.abs().max() > 1e-3:  # the capacity's mean is over entries of both
            assert torch.allclose(left.grad, right.grad, rtol=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": msgspec.structs.replace(SETTINGS, capacity=5)}, "capacity was 4.0, is 5"),
        ({"settings": msgspec.structs.replace(SETTINGS, num_steps=8)}, "num_steps was 9, is 8"),
        ({"batches": BATCHES[:3]}, "data_sha256 was"),
        ({"model": tiny_model(seed=1)}, "model_sha256 was"),
    ],
)
def test_checkpoint_of_another_training_is_refused(
    model: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "gates.safetensors"
    _interrupted(_run(model, path).run(save_every=1), 2)
    before = (tmp_path / "gates.safetensors.checkpoint").read_bytes()
    with pytest.raises(ConfigError, match=f"of another training: {message}") as caught:
        _run(**{"model": model, "path": path, **change})
    assert "remove it to begin anew" in (caught.value.hint or "")
    assert (tmp_path / "gates.safetensors.checkpoint").read_bytes() == before


def test_checkpoint_of_another_shape_is_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    _interrupted(_run(model, path).run(save_every=1), 1)
    shape = shape_for(model.config, "rg", hidden_size=8, initial_bias=3.0)
    with pytest.raises(ConfigError, match="of another training: kind was rg10, is rg"):
        _run(model, path, shape=shape)


def test_broken_checkpoints_are_errors(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    _interrupted(_run(model, path).run(save_every=1), 1)
    checkpoint = tmp_path / "gates.safetensors.checkpoint"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match="no safetensors file"):
        _run(model, path)
    checkpoint.write_bytes(whole)
    tensors, record = read_file(checkpoint)
    write_file(
        checkpoint, {k: v for k, v in tensors.items() if not k.startswith("optimizer.1.")}, record
    )
    with pytest.raises(ConfigError, match="has not the optimizer of all gates"):
        _run(model, path)


def test_unwritable_output_is_noticed_before_the_first_step(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    run = _run(model, tmp_path / "file" / "gates.safetensors")
    before = {name: tensor.clone() for name, tensor in run._gates.state_dict().items()}
    with pytest.raises(HoldfastError, match="cannot be written"):
        next(run.run(save_every=1))
    assert all(tensor.equal(before[name]) for name, tensor in run._gates.state_dict().items())


def test_training_that_did_no_step_begins_again(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    losses = _interrupted(_run(model, path).run(save_every=100), 1)
    again = _run(model, path)
    assert again.num_steps == 0
    assert _interrupted(again.run(save_every=100), 1) == losses


def test_existing_gates_are_not_replaced(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists already"):
        _run(model, path)
    assert path.read_bytes() == b"mine"


def test_nothing_to_train_on_is_an_error(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        _run(model, tmp_path / "gates.safetensors", batches=[])


def test_loss_that_is_not_a_number_stops_the_training(tmp_path: Path) -> None:
    model = tiny_model()
    path = tmp_path / "gates.safetensors"
    run = _run(model, path)
    steps = run.run(save_every=1)
    next(steps)
    checkpoint = (tmp_path / "gates.safetensors.checkpoint").read_bytes()
    before = {name: tensor.clone() for name, tensor in run._gates.state_dict().items()}
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(HoldfastError, match="step 1: losses are"):
        next(steps)
    assert all(tensor.equal(before[name]) for name, tensor in run._gates.state_dict().items())
    assert (tmp_path / "gates.safetensors.checkpoint").read_bytes() == checkpoint


def test_every_batch_comes_once_a_round() -> None:
    order = [index for step in range(6) for index in batch_indices(step, 2, 6, seed=3)]
    first, second = order[:6], order[6:]
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4, 5]
    assert first != second
    assert [index for step in range(3) for index in batch_indices(step, 2, 6, seed=4)] != first


def test_learning_rate_rises_and_falls_along_a_cosine() -> None:
    settings = TrainingSettings(capacity=1, num_steps=12, learning_rate=0.8, warm_up_share=1 / 3)
    rates = [settings.learning_rate_at(step) for step in range(12)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[8] == pytest.approx(0.4)
    assert 0 < rates[11] < 0.05


def test_batch_knows_what_is_asked() -> None:
    batch = Batch(
        torch.tensor([[5, 6, 7, 8], [9, 4, 3, 2]]),
        torch.tensor([[5, -100, 7, -100], [-100, -100, -100, 2]]),
    )
    places = batch.places()
    assert places.tolist() == [1, 2]  # the first token cannot be predicted
    logits = torch.arange(4.0).view(2, 2, 1)
    assert batch.asked(logits, places)[:, 0].tolist() == [0, 3]
    assert batch.answers().tolist() == [7, 2]


def test_digest_is_of_tokens_and_labels() -> None:
    first = BATCHES[0]
    found = {
        digest_of(batches)
        for batches in (
            [first],
            [replace(first, labels=first.tokens)],
            [replace(first, tokens=first.tokens + 1)],
            [first, first],
        )
    }
    assert len(found) == 4
    assert digest_of([first]) == digest_of([batch_of(0)])
