"""A tiny chat model with random weights, built in a second and served by any vLLM.

The weights vary widely enough that greedy decoding has a clear winner at each position: two engines
that compute the same then produce the same tokens. Nothing is downloaded.
"""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any, Final

import numpy as np

from holdfast.errors import EngineError

__all__ = [
    "BLOCK_SIZE_TOKENS",
    "KV_BYTES_PER_TOKEN",
    "MAX_MODEL_LEN",
    "VOCAB_SIZE",
    "build_tiny_model",
]

VOCAB_SIZE: Final = 2048
MAX_MODEL_LEN: Final = 131_072
BLOCK_SIZE_TOKENS: Final = 32
"""Smallest KV block that vLLM's CPU attention takes."""

_HIDDEN_SIZE = 256
_INTERMEDIATE_SIZE = 512
_HEAD_DIM = 64  # vLLM's CPU attention refuses 16
_NUM_HEADS = 1
_NUM_KV_HEADS = 1
_NUM_LAYERS = 1

KV_BYTES_PER_TOKEN: Final = _NUM_LAYERS * 2 * _NUM_KV_HEADS * _HEAD_DIM * 4
"""Keys and values in float32."""

_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL_TOKENS = (_PAD, _START, _END)

_CHAT_TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\n# Tools\\n' }}\
{%- for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}\
{{- '<|im_start|>' + message.role + '\\n' }}\
{%- if message.content is string %}{{ message.content }}\
{%- elif message.content %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}\
{%- for call in message.tool_calls or [] %}\
{{- '<tool_call>\\n' }}{{ call.function | tojson }}{{ '\\n</tool_call>' }}{% endfor %}\
{{- '<|im_end|>\\n' }}\
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def build_tiny_model(directory: Path, *, seed: int = 0) -> Path:
    """Write config, tokenizer and weights; equal seeds give equal files.

    Args:
        directory: Created if needed; files of the same names are overwritten.
        seed: Seed of the weights.

    Returns:
        `directory`, which vLLM takes as the model.

    Raises:
        EngineError: `tokenizers` or `safetensors` (both come with vLLM) are missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", _model_config())
    _write_json(directory / "generation_config.json", {"eos_token_id": _special_id(_END)})
    _write_json(directory / "tokenizer_config.json", _tokenizer_config())
    (directory / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    _write_tokenizer(directory / "tokenizer.json")
    _write_weights(directory / "model.safetensors", seed)
    return directory


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _special_id(token: str) -> int:
    return VOCAB_SIZE - len(_SPECIAL_TOKENS) + _SPECIAL_TOKENS.index(token)


def _model_config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": _special_id(_PAD),
        "eos_token_id": _special_id(_END),
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": _HIDDEN_SIZE,
        "intermediate_size": _INTERMEDIATE_SIZE,
        "max_position_embeddings": MAX_MODEL_LEN,
        "num_attention_heads": _NUM_HEADS,
        "num_hidden_layers": _NUM_LAYERS,
        "num_key_value_heads": _NUM_KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "vocab_size": VOCAB_SIZE,
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_MODEL_LEN,
        "eos_token": _END,
        "pad_token": _PAD,
        "chat_template": _CHAT_TEMPLATE,
    }


def _merges() -> list[tuple[str, str]]:
    """Pairs of letters and digits, some after a blank: about two characters a token."""
    space = "\u0120"  # a blank in byte-level BPE
    lower = string.ascii_lowercase
    starts = [(space, letter) for letter in lower]
    pairs = list(itertools.product(lower, lower))
    digits = list(itertools.product(string.digits, string.digits))
    words = [(space + first, second) for first, second in pairs]
    capitals = list(itertools.product(string.ascii_uppercase, lower))
    # Words come before pairs, or " ab" would split as " " + "ab".
    wanted = VOCAB_SIZE - 256 - len(_SPECIAL_TOKENS)
    return [*starts, *words, *pairs, *digits, *capitals][:wanted]


def _write_tokenizer(path: Path) -> None:
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    except ImportError as error:
        raise _missing("tokenizers") from error
    merges = _merges()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(first + second for first, second in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL_TOKENS])
    tokenizer.save(str(path))


def _weight_shapes() -> dict[str, tuple[int, ...]]:
    hidden, attended, kept = _HIDDEN_SIZE, _NUM_HEADS * _HEAD_DIM, _NUM_KV_HEADS * _HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB_SIZE, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (VOCAB_SIZE, hidden),
    }
    for layer in range(_NUM_LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (attended, hidden),
            prefix + "self_attn.k_proj.weight": (kept, hidden),
            prefix + "self_attn.v_proj.weight": (kept, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, attended),
            prefix + "mlp.gate_proj.weight": (_INTERMEDIATE_SIZE, hidden),
            prefix + "mlp.up_proj.weight": (_INTERMEDIATE_SIZE, hidden),
            prefix + "mlp.down_proj.weight": (hidden, _INTERMEDIATE_SIZE),
        }
    return shapes


def _write_weights(path: Path, seed: int) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise _missing("safetensors") from error
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in sorted(_weight_shapes().items()):
        if len(shape) == 1:
            weights[name] = np.ones(shape, dtype=np.float32)
        else:
            drawn = generator.standard_normal(shape, dtype=np.float32)
            weights[name] = drawn * np.float32(1.5 / np.sqrt(shape[1]))
    save_file(weights, str(path), metadata={"format": "pt"})


def _missing(package: str) -> EngineError:
    return EngineError(
        f"the tiny model needs {package!r}, which is not installed",
        hint="it comes with vLLM: install holdfast[vllm], or requirements/engine-cpu.txt on a CPU",
    )
