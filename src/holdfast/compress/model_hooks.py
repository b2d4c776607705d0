"""Another attention function for a model, and a look at its layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

__all__ = ["inputs_of_attention", "with_attention"]


@contextmanager
def with_attention(model: Any, name: str) -> Iterator[None]:
    """Compute attention with a registered function. Mutates the model, and undoes it.

    Args:
        model: A model of transformers.
        name: The function's name in `AttentionInterface`.
    """
    own = model.config._attn_implementation  # noqa: SLF001 - transformers has no other way to ask
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def inputs_of_attention(model: Any, take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Hand over what enters each attention layer, before it computes.

    Mutates the model, and undoes it.

    Args:
        model: A model of transformers.
        take: Gets the layer's index and its input, (B, T, m), after the layer's norm.
    """

    def before(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs = named["hidden_states"] if "hidden_states" in named else arguments[0]
        take(module.layer_idx, inputs)

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True)
        for module in model.modules()
        if hasattr(module, "layer_idx") and hasattr(module, "o_proj")
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
