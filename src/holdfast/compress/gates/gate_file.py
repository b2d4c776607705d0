"""Files of gates and of unfinished trainings, in safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor

from holdfast.compress.gates.gate import GateShape, RetentionGates
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.errors import ConfigError
from holdfast.report.page import write_whole

__all__ = [
    "GateRecord",
    "fill",
    "load_gates",
    "model_digest",
    "read_file",
    "save_gates",
    "write_file",
]

_KEY: Final = "holdfast"
_SCHEMA: Final = "holdfast.gates/1"


class GateRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What gates are, what model they belong to and how they were trained.

    Attributes:
        shape: Their shape.
        model_sha256: Digest of the model, see `model_digest`.
        training: Settings of the training.
        data_sha256: Digest of the sequences that they were trained on.
        num_tokens: The longest of these sequences.
        num_steps: Steps that are done (count).
        schema: Of the record.
    """

    shape: GateShape
    model_sha256: str
    training: TrainingSettings
    data_sha256: str
    num_tokens: int
    num_steps: int
    schema: str = _SCHEMA


def model_digest(model: Any) -> str:
    """SHA-256 of a model's weights, with their names and shapes, hexadecimal. Pure.

    The same weights have the same digest whether they were loaded from safetensors or GGUF.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_gates(path: Path, gates: RetentionGates, record: GateRecord) -> None:
    """Write gates to a file, replacing an old one in one step.

    Raises:
        HoldfastError: The file cannot be written.
    """
    write_file(path, gates.state_dict(), record)


def load_gates(path: Path, model: Any, *, digest: str | None = None) -> RetentionGates:
    """Gates from a file, for the model that they were trained with.

    Args:
        path: The file.
        model: The model.
        digest: The model's digest, if it is known.

    Raises:
        ConfigError: The file cannot be read or is none of gates, or they belong to another model.
    """
    tensors, record = read_file(path)
    found = model_digest(model) if digest is None else digest
    if record.model_sha256 != found:
        raise ConfigError(
            f"{path}: gates of another model: trained with {record.model_sha256[:12]}…,"
            f" this one is {found[:12]}…",
            hint="gates fit only the weights they were trained with: train with this model",
        )
    gates = RetentionGates(record.shape)
    fill(gates, tensors, path)
    gates.to(model.device).eval().requires_grad_(False)
    return gates


def fill(gates: RetentionGates, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give gates the weights of a file. Mutates them.

    Raises:
        ConfigError: A tensor is missing, has another shape or is not finite; the gates are as they
            were.
    """
    for name, own in gates.state_dict().items():
        if name not in tensors:
            raise ConfigError(f"{path}: has no tensor {name!r}")
        given = tensors[name]
        if given.shape != own.shape:
            raise ConfigError(
                f"{path}: {name} has the shape {tuple(given.shape)}, expected {tuple(own.shape)}"
            )
        if not bool(given.isfinite().all()):
            raise ConfigError(f"{path}: {name} has values that are not numbers")
    gates.load_state_dict({name: tensors[name] for name in gates.state_dict()})


def write_file(path: Path, tensors: Mapping[str, Tensor], record: GateRecord) -> None:
    """Write tensors and a record, replacing an old file in one step.

    Raises:
        HoldfastError: The file cannot be written.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = msgspec.json.encode(record).decode()
    write_whole(path, save(contiguous, metadata={_KEY: text}))


def read_file(path: Path) -> tuple[dict[str, Tensor], GateRecord]:
    """Tensors and record of a file that `write_file` wrote.

    Raises:
        ConfigError: The file cannot be read, or is none of these.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ConfigError(f"{path}: no such file of gates")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ConfigError(f"{path}: no safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ConfigError(f"{path}: a safetensors file without retention gates")
    try:
        record = msgspec.json.decode(metadata[_KEY], type=GateRecord)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: unknown kind of retention gates: {error}") from error
    if record.schema != _SCHEMA:
        raise ConfigError(f"{path}: schema {record.schema!r}, expected {_SCHEMA!r}")
    return tensors, record
