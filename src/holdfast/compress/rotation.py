"""Rotary positions of keys: by how much a key turns from one position to the next.

A query sees only the distance to a key. So keys that are all turned back by one angle are as good
as before, if all later tokens have positions that much smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from holdfast.errors import ConfigError

__all__ = ["Rotation", "rotation_of"]

_CONSTANT: Final = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embeddings whose frequencies depend on no sequence's length."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Frequencies of a model's rotary embedding, whose pairs are a head's two halves.

    Source: RoFormer (arXiv 2104.09864).

    Attributes:
        frequencies: Angle between two positions, of each pair, (d / 2,), float64 (rad).
    """

    frequencies: Tensor

    def turned_back(self, keys: Tensor, distance: int) -> Tensor:
        """Keys as if each token stood `distance` positions before its own; pure.

        Computed in float32.

        Args:
            keys: Rotated keys, (..., d).
            distance: Positions (count, may be negative).

        Returns:
            (..., d), of the dtype of `keys`.
        """
        angles = -distance * self.frequencies
        cosine, sine = angles.cos().float().to(keys.device), angles.sin().float().to(keys.device)
        first, second = keys.float().chunk(2, dim=-1)
        turned = (first * cosine - second * sine, second * cosine + first * sine)
        return torch.cat(turned, dim=-1).to(keys.dtype)


def rotation_of(config: Any) -> Rotation:
    """The rotation of a model's keys; pure.

    Args:
        config: The model's configuration, as transformers has it.

    Raises:
        ConfigError: Frequencies depend on the length of the sequence, or are not the same in all
            layers, or a part of a key does not turn.
    """
    parameters = _parameters(config)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in _CONSTANT:
        raise ConfigError(
            f"keys of rotary embeddings of type {kind!r} cannot be moved:"
            " their frequencies depend on the sequence's length",
            hint=f"types that can: {', '.join(_CONSTANT)}",
        )
    partial = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1))
    if partial not in (1, None):
        raise ConfigError(f"keys cannot be moved where a share of {partial:g} of them turns")
    return Rotation(_frequencies(config, kind, parameters))


def _parameters(config: Any) -> dict[str, Any]:
    """What a configuration says of rotary embeddings, in this or an older form."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if any(isinstance(value, dict) for value in found.values()):
        raise ConfigError("keys cannot be moved where layers have rotary embeddings of their own")
    return dict(found)


def _frequencies(config: Any, kind: str, parameters: dict[str, Any]) -> Tensor:
    if kind != "default":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        frequencies: Tensor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))[0]
        return frequencies.double()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    base = parameters.get("rope_theta") or getattr(config, "rope_theta", 10_000.0)
    exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
    return torch.as_tensor(base, dtype=torch.float64) ** -exponents
