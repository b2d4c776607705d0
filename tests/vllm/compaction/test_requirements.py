"""Engines whose sessions cannot be compacted, by vLLM's own configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "vocab_size": 256,
    "dtype": "float32",
}
_MISTRAL = {**_LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
_LATENT = {
    **_LLAMA,
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": None,
}
_HYBRID = {
    **_LLAMA,
    "architectures": ["BambaForCausalLM"],
    "model_type": "bamba",
    "attn_layer_indices": [1],
    "mamba_n_heads": 4,
    "mamba_d_head": 64,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
}


def _engine_config(directory: Path, model: dict[str, Any], **arguments: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    (directory / "config.json").write_text(json.dumps(model))
    return EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=256,
        **{"enable_prefix_caching": True, **arguments},
    ).create_engine_config()


def _check(config: Any) -> None:
    from holdfast.vllm.compaction.requirements import check_engine

    check_engine(config)


def test_plain_llama_is_taken(tmp_path: Path) -> None:
    _check(_engine_config(tmp_path, _LLAMA))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        pytest.param(
            {**_LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "'dynamic' cannot be moved",
            id="dynamic rotary embedding",
        ),
        pytest.param({**_MISTRAL, "sliding_window": 64}, "sliding windows", id="sliding window"),
        pytest.param(_LATENT, "MLA", id="latent cache"),
        pytest.param(_HYBRID, "recurrent layers", id="hybrid"),
        pytest.param(
            {**_LLAMA, "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"},
            "GPTNeoXForCausalLM is none of",
            id="unknown architecture",
        ),
    ],
)
def test_model_refused_with_a_reason(model: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        _check(_engine_config(tmp_path, model))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"kv_cache_dtype": "fp8"}, "quantized to fp8"),
        ({"enable_prefix_caching": False}, "prefix caching is off"),
        ({"enable_lora": True}, "LoRA adapters"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is 2"),
    ],
)
def test_engine_refused_with_a_reason(arguments: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        _check(_engine_config(tmp_path, _LLAMA, **arguments))


@pytest.mark.parametrize("method", ["snapkv", "layer-defensivekv", "keydiff:scope=all"])
def test_method_that_no_block_table_holds_is_refused(method: str) -> None:
    from holdfast.vllm.compaction.requirements import engine_method

    with pytest.raises(ConfigError, match=r"queries|one for all heads"):
        engine_method(method)
