"""A training that can stop at any time and go on exactly as if it had not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from torch import Tensor

from holdfast.compress.gates.batch import Batch, batch_indices, digest_of
from holdfast.compress.gates.gate import GateShape, RetentionGates
from holdfast.compress.gates.gate_file import (
    GateRecord,
    fill,
    model_digest,
    read_file,
    save_gates,
    write_file,
)
from holdfast.compress.gates.trainer import GateTrainer, StepLosses
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.errors import ConfigError

__all__ = ["TrainingRun"]

_OPTIMIZER: Final = "optimizer."


class TrainingRun:
    """Gates, their optimizer and how far it is, with a checkpoint on disk.

    A step depends on the settings, the data and what was before alone. So a run that was stopped
    and goes on from its checkpoint ends with exactly the gates of one that was not, on the same
    machine with the same number of threads.
    """

    def __init__(
        self,
        model: Any,
        shape: GateShape,
        settings: TrainingSettings,
        batches: Sequence[Batch],
        output: Path,
        *,
        initial: RetentionGates | None = None,
    ) -> None:
        """Begin, or go on where there is a checkpoint. Reads it.

        Args:
            model: A causal language model of transformers, in evaluation mode.
            shape: Of the gates.
            settings: Of the training; its seed is also that of new gates.
            batches: What to train on (at least one); each has a token to predict.
            output: Where the gates will be. The checkpoint is beside it until then.
            initial: Gates to go on with, from another training; new ones if None.

        Raises:
            ConfigError: There are no batches, there are gates already, or the checkpoint is broken
                or of another training.
        """
        if not batches:
            raise ConfigError("nothing to train on")
        if output.exists():
            raise ConfigError(
                f"{output}: exists already", hint="remove it, or choose another --output"
            )
        self.output = output
        self.checkpoint = output.with_name(output.name + ".checkpoint")
        self._settings, self._batches = settings, batches
        self._gates = RetentionGates(shape, seed=settings.seed).to(model.device)
        if initial is not None:
            self._gates.load_state_dict(initial.state_dict())
        self._trainer = GateTrainer(model, self._gates, settings)
        self.record = GateRecord(
            shape=shape,
            model_sha256=model_digest(model),
            training=settings,
            data_sha256=digest_of(batches),
            num_tokens=max(batch.tokens.shape[1] for batch in batches),
            num_steps=0,
        )
        if self.checkpoint.exists():
            self._resume()

    @property
    def num_steps(self) -> int:
        """Steps that are done."""
        return self.record.num_steps

    @property
    def total_steps(self) -> int:
        """Steps that there will be."""
        return self._settings.num_steps

    def run(self, *, save_every: int) -> Iterator[StepLosses]:
        """Train to the end, then write the gates and remove the checkpoint.

        Args:
            save_every: Steps between checkpoints (at least 1).

        Yields:
            Losses of each step that was not done before.

        Raises:
            HoldfastError: A loss is not a number, or a file cannot be written. Gates as of the last
                checkpoint stay.
        """
        settings = self._settings
        self._save()  # fails before the first step where nothing can be written
        for step in range(self.num_steps, settings.num_steps):
            chosen = batch_indices(
                step, settings.batches_per_step, len(self._batches), settings.seed
            )
            losses = self._trainer.step(step, [self._batches[index] for index in chosen])
            self.record = msgspec.structs.replace(self.record, num_steps=step + 1)
            if (step + 1) % save_every == 0:
                self._save()
            yield losses
        save_gates(self.output, self._gates, self.record)
        self.checkpoint.unlink(missing_ok=True)

    def _save(self) -> None:
        """Write weights of the gates, and of the optimizer by parameter and name."""
        state = self._trainer.optimizer.state_dict()["state"]
        moments = {
            f"{_OPTIMIZER}{index}.{name}": tensor
            for index, tensors in state.items()
            for name, tensor in tensors.items()
        }
        write_file(self.checkpoint, {**self._gates.state_dict(), **moments}, self.record)

    def _resume(self) -> None:
        """Take over the checkpoint."""
        tensors, record = read_file(self.checkpoint)
        if msgspec.structs.replace(record, num_steps=0) != self.record:
            raise ConfigError(
                f"{self.checkpoint}: of another training: {_difference(record, self.record)}",
                hint="remove it to begin anew, or train with the same model, data and settings",
            )
        fill(self._gates, tensors, self.checkpoint)
        optimizer = self._trainer.optimizer
        shown = optimizer.state_dict()
        shown["state"] = _nested(tensors)
        if record.num_steps and len(shown["state"]) != len(list(self._gates.parameters())):
            raise ConfigError(f"{self.checkpoint}: has not the optimizer of all gates")
        optimizer.load_state_dict(shown)
        self.record = msgspec.structs.replace(self.record, num_steps=record.num_steps)


def _nested(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The optimizer's state, by parameter and name."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_OPTIMIZER):
            index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
            state.setdefault(int(index), {})[name] = tensor
    return state


def _difference(old: GateRecord, new: GateRecord) -> str:
    """The first thing that two records differ in."""
    for left, right in ((old, new), (old.shape, new.shape), (old.training, new.training)):
        for name in left.__struct_fields__:
            before, now = getattr(left, name), getattr(right, name)
            if name != "num_steps" and isinstance(before, str | int | float) and before != now:
                return f"{name} was {before}, is {now}"
    before, now = old.training.num_steps, new.training.num_steps
    return f"num_steps was {before}, is {now}"
