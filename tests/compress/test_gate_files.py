"""Files of gates: what they belong to, broken ones, and methods that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from tests.compress.gate_cases import gates_for
from tests.compress.layers import tiny_model, tokens

from holdfast.compress.encoded import EncodedQuestion, EncodedSample, EncodedTurn
from holdfast.compress.evaluation import evaluate
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.gates.gate_file import (
    GateRecord,
    load_gates,
    model_digest,
    read_file,
    save_gates,
    write_file,
)
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.compress.method_gates import gates_of
from holdfast.compress.methods import find_method
from holdfast.compress.session import Session
from holdfast.errors import ConfigError

SAMPLE = EncodedSample(
    "own",
    0,
    tuple(
        EncodedTurn(
            tuple(tokens(seed, 60)), (EncodedQuestion(tuple(tokens(8, 5)), tuple(tokens(9, 3))),)
        )
        for seed in (1, 2)
    ),
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture
def gates(model: Any) -> RetentionGates:
    return gates_for(model)


@pytest.fixture
def path(model: Any, gates: RetentionGates, tmp_path: Path) -> Path:
    path = tmp_path / "rg10.safetensors"
    save_gates(path, gates, _record(model, gates))
    return path


def _record(model: Any, gates: RetentionGates) -> GateRecord:
    training = TrainingSettings(capacity=4, num_steps=7)
    return GateRecord(gates.shape, model_digest(model), training, "d" * 64, 512, 7)


def test_gates_come_back_as_they_were(model: Any, gates: RetentionGates, path: Path) -> None:
    found = load_gates(path, model)
    assert found.shape == gates.shape
    assert all(
        tensor.equal(found.state_dict()[name]) for name, tensor in gates.state_dict().items()
    )
    assert read_file(path)[1] == _record(model, gates)
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_digest_is_of_the_weights(model: Any) -> None:
    assert model_digest(model) == model_digest(tiny_model())
    other = tiny_model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    assert model_digest(other) != model_digest(model)


def test_gates_of_another_model_are_refused(path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"rg10.safetensors: gates of another model: trained with"
    ):
        load_gates(path, tiny_model(seed=1))


def _without(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (None, "has no tensor 'outputs.0.weight'"),
        (torch.zeros(2, 9), r"outputs.0.weight has the shape \(2, 9\), expected \(2, 8\)"),
        (torch.full((2, 8), torch.nan), "outputs.0.weight has values that are not numbers"),
    ],
)
def test_wrong_tensors_are_errors(
    model: Any, path: Path, weight: torch.Tensor | None, message: str
) -> None:
    tensors, record = read_file(path)
    rest = _without(tensors, "outputs.0.weight")
    write_file(path, rest if weight is None else {**rest, "outputs.0.weight": weight}, record)
    with pytest.raises(ConfigError, match=message):
        load_gates(path, model)


def test_files_that_are_no_gates_are_errors(model: Any, tmp_path: Path, path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file of gates"):
        load_gates(tmp_path / "none", model)
    with pytest.raises(ConfigError, match="no such file of gates"):
        load_gates(tmp_path, model)
    broken = tmp_path / "broken"
    for content in (b"", b"not tensors at all", path.read_bytes()[:200]):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match="broken: no safetensors file"):
            load_gates(broken, model)
    save_file({"a": torch.zeros(1)}, broken)
    with pytest.raises(ConfigError, match="without retention gates"):
        load_gates(broken, model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "unknown kind of retention gates: .*missing required field"),
        ("nonsense", "unknown kind of retention gates"),
    ],
)
def test_records_that_cannot_be_read_are_errors(
    model: Any, tmp_path: Path, text: str, message: str
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "gates", metadata={"holdfast": text})
    with pytest.raises(ConfigError, match=message):
        load_gates(tmp_path / "gates", model)


def test_records_of_a_later_version_are_errors(
    model: Any, gates: RetentionGates, tmp_path: Path
) -> None:
    record = msgspec.structs.replace(_record(model, gates), schema="holdfast.gates/2")
    save_gates(tmp_path / "gates", gates, record)
    with pytest.raises(
        ConfigError, match=r"schema 'holdfast.gates/2', expected 'holdfast.gates/1'"
    ):
        load_gates(tmp_path / "gates", model)


def test_methods_bring_their_gates(model: Any, gates: RetentionGates, path: Path) -> None:
    methods = [
        find_method(text)
        for text in (f"rg10:gates={path}", f"rg10:gates={path}:scope=head", "snapkv")
    ]
    found = gates_of(methods, model)
    assert list(found) == [str(path)]
    assert found[str(path)].state_dict().keys() == gates.state_dict().keys()
    assert gates_of([find_method("snapkv")], model) == {}


def test_methods_without_their_gates_are_refused(model: Any, path: Path) -> None:
    with pytest.raises(ConfigError, match="method 'rg:scope=head' needs gates") as caught:
        gates_of([find_method("rg:scope=head")], model)
    assert "rg:gates=PATH" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="gates of kind rg10, not rg") as caught:
        gates_of([find_method(f"rg:gates={path}")], model)
    assert caught.value.hint == f"rg10:gates={path}"


def test_session_without_the_gates_is_an_error(model: Any) -> None:
    session = Session(model)
    session.append(tokens(1, 30))
    with pytest.raises(ConfigError, match="no gates given"):
        session.compact(find_method("rg10"), 0.5)
    with pytest.raises(ConfigError, match="no gates 'x' in this session"):
        session.compact(find_method("rg10:gates=x"), 0.5)
    assert session.num_tokens == 30


def test_evaluation_with_gates_is_a_session_by_hand(model: Any, gates: RetentionGates) -> None:
    """Two turns, so that what gates said of the first is still known after the second."""
    method = find_method("rg10:gates=own")
    outcomes = list(evaluate(model, [SAMPLE], [method], [0.3], {"own": gates}))
    session = Session(model, gates={"own": gates})
    for turn, found in zip(SAMPLE.turns, outcomes[1::2], strict=True):
        session.append(turn.tokens)
        report = session.compact(method, 0.3)
        (question,) = turn.questions
        logits = session.ask((*question.tokens, *question.answer[:-1]), num_logits=3)
        nll = -logits.log_softmax(-1).gather(1, torch.tensor(question.answer)[:, None]).mean()
        assert found.nll == pytest.approx(float(nll))
        assert found.nll != pytest.approx(outcomes[0].nll)
        assert sum(map(sum, report.kept)) == 4 * (report.budget.num_tokens * 3 // 10)
    told = session.cached_layers()[0].log_retention["own"]
    assert told.shape == session.cached_layers()[0].positions.shape


def test_equal_counts_leave_memory_with_gates(model: Any, gates: RetentionGates) -> None:
    method = find_method("rg10:gates=own:scope=head")
    session = Session(model, gates={"own": gates})
    session.append(tokens(1, 60))
    whole = session.cached_layers()
    session.compact(method, 0.5)
    for before, after in zip(whole, session.cached_layers(), strict=True):
        assert after.keys.shape == (2, 30, 16)
        expected = before.log_retention["own"].gather(1, after.positions)
        assert after.log_retention["own"].equal(expected)
    session.append(tokens(2, 20))
    session.compact(method, 0.5)
    assert session.cached_layers()[0].keys.shape == (2, 40, 16)
