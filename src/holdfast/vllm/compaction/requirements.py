"""Engines whose sessions cannot be compacted, each refused with a reason.

Process: every. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.compress.methods import Method, find_method
from holdfast.compress.rotation import Rotation, rotation_of
from holdfast.compress.uniform import check_uniform
from holdfast.errors import ConfigError

__all__ = ["check_engine", "engine_method", "engine_rotation"]

_ARCHITECTURES: Final = (
    *("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
)
"""Models whose keys turn as a whole, in two halves, and by nothing but their position."""

_ENGINES: Final = (
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    *("decode_context_parallel_size", "prefill_context_parallel_size"),
)
_KV_DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
_HINT: Final = "unset compact_dir"


def engine_method(name: str) -> Method:
    """A method by name that an engine's cache can hold; pure.

    Raises:
        ConfigError: There is no such method, it needs queries, or heads would keep different
            numbers of entries.
    """
    method = find_method(name)
    check_uniform(method)
    return method


def engine_rotation(config: Any) -> Rotation:
    """How keys of an engine's model turn; pure.

    Args:
        config: vLLM's `VllmConfig`.

    Raises:
        ConfigError: They cannot be moved to other positions.
    """
    return rotation_of(config.model_config.hf_text_config)


def check_engine(config: Any) -> None:
    """Check that an engine's sessions can be compacted; pure.

    Args:
        config: vLLM's `VllmConfig`.

    Raises:
        ConfigError: They cannot; the message says why.
    """
    for why in (_model_trouble(config.model_config), _engine_trouble(config)):
        if why:
            raise ConfigError(f"sessions cannot be compacted: {why}", hint=_HINT)
    engine_rotation(config)


def _model_trouble(model: Any) -> str:
    text = model.hf_text_config
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if model.use_mla:
        return "the model keeps one latent entry for all heads (MLA)"
    if model.is_hybrid or getattr(model, "is_attention_free", False):
        return "the model has recurrent layers, whose states are of all tokens at once"
    if model.get_sliding_window() is not None or kinds:
        return "the model has layers of another kind than full attention (sliding windows)"
    names = tuple(model.architectures or ())
    if not set(names) & set(_ARCHITECTURES):
        return f"{', '.join(names)} is none of {', '.join(_ARCHITECTURES)}"
    return ""


def _engine_trouble(config: Any) -> str:
    parallel, cache = config.parallel_config, config.cache_config
    for name in _ENGINES:
        if (getattr(parallel, name, 1) or 1) > 1:
            return f"{name} is {getattr(parallel, name)}, and one worker must have all heads"
    if str(cache.cache_dtype) not in _KV_DTYPES:
        return f"the KV cache is quantized to {cache.cache_dtype}"
    if not cache.enable_prefix_caching:
        return "prefix caching is off, so no prefix is known again"
    if config.speculative_config is not None:
        return "a speculative decoder would draft from placeholder tokens"
    if config.lora_config is not None:
        return "two LoRA adapters of one name cannot be told apart"
    return ""
