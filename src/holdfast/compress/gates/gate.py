"""Retention gates: from an attention layer's input to each entry's retention."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from holdfast.compress.supported import require_cache_by_head
from holdfast.errors import ConfigError

__all__ = ["GateShape", "RetentionGates", "shape_for"]

_LARGEST_LOG: Final = -1e-9
"""Of a retention: exactly 1 would make look-ahead scores 0 / 0."""

_INITIAL_DEVIATION: Final = 0.02

Count = Annotated[int, Meta(ge=1)]


class GateShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a set of gates consists of.

    Attributes:
        kind: `rg` has one hidden layer, `rg10` two, and one output layer that all layers share.
        num_layers: Attention layers L (count).
        num_heads: KV heads H of a layer (count).
        model_size: Width m of an attention layer's input.
        hidden_size: Width of the gates' hidden layers.
        initial_bias: Logit of retention before training. The decay starts at exp(-initial_bias) a
            token, so a value above the logarithm of the length keeps most of a context. Gradients
            shrink as much: at 18 they are near the epsilon of Adam.
    """

    kind: Literal["rg", "rg10"]
    num_layers: Count
    num_heads: Count
    model_size: Count
    hidden_size: Count = 512
    initial_bias: float = 10.0


def shape_for(config: Any, kind: str, *, hidden_size: int, initial_bias: float) -> GateShape:
    """The shape of gates for a model. Pure.

    Args:
        config: Of a model of transformers.
        kind: `rg` or `rg10`.
        hidden_size: Width of the gates' hidden layers (at least 1).
        initial_bias: Logit of retention before training.

    Raises:
        ConfigError: A value is out of range, or the model's cache is not one of heads.
    """
    require_cache_by_head(config)
    fields = {
        "kind": kind,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_key_value_heads,
        "model_size": config.hidden_size,
        "hidden_size": hidden_size,
        "initial_bias": initial_bias,
    }
    try:
        return msgspec.convert(fields, GateShape)
    except msgspec.ValidationError as error:
        raise ConfigError(f"retention gates: {error}") from error


class RetentionGates(nn.Module):  # type: ignore[misc]
    """One gate a layer, with an output for each of its KV heads.

    Source: TRIM-KV (`rg`) and DBTrimKV (`rg10`). Differs: computes in float32 whatever the model's
    type, since logarithms near 0 of a half-precision type are equal or exactly 0.
    """

    def __init__(self, shape: GateShape, *, seed: int = 0) -> None:
        """Gates before training.

        Args:
            shape: Their shape.
            seed: Of the initial weights, which are normal with a deviation of 0.02.
        """
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        is_deep = shape.kind == "rg10"
        self.hidden = nn.ModuleList(_hidden(shape, is_deep) for _ in range(shape.num_layers))
        self.outputs = nn.ModuleList(
            nn.Linear(shape.hidden_size, shape.num_heads)
            for _ in range(1 if is_deep else shape.num_layers)
        )
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("weight"):
                    parameter.normal_(0.0, _INITIAL_DEVIATION, generator=generator)
                else:
                    parameter.fill_(shape.initial_bias if name.startswith("outputs") else 0.0)

    def log_retention(self, layer: int, inputs: Tensor) -> Tensor:
        """The logarithm of each entry's retention.

        The retention is what is left of an entry a token later, as a factor of its attention.

        Args:
            layer: Which layer (from 0).
            inputs: Input of its attention, after the norm, (B, T, m).

        Returns:
            (B, H, T), float32, at most -1e-9.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            output = self.outputs[0 if len(self.outputs) == 1 else layer]
            logits = output(self.hidden[layer](inputs.to(output.weight.dtype)))
            return functional.logsigmoid(logits).clamp_max(_LARGEST_LOG).transpose(1, 2)


def _hidden(shape: GateShape, is_deep: bool) -> nn.Sequential:
    layers = [nn.Linear(shape.model_size, shape.hidden_size), nn.SiLU()]
    if is_deep:
        layers += [nn.Linear(shape.hidden_size, shape.hidden_size), nn.SiLU()]
    return nn.Sequential(*layers)
