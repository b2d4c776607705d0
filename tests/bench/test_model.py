"""The tiny model's files; tests of servers serve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.bench.model import VOCAB_SIZE, build_tiny_model

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def test_equal_seeds_give_equal_files(model: Path, tmp_path: Path) -> None:
    again = build_tiny_model(tmp_path / "again")
    assert {file.name: file.read_bytes() for file in model.iterdir()} == {
        file.name: file.read_bytes() for file in again.iterdir()
    }


def test_another_seed_gives_other_weights(model: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1) / "model.safetensors"
    assert other.read_bytes() != (model / "model.safetensors").read_bytes()


def test_tokenizer_fills_the_models_vocabulary(model: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert json.loads((model / "config.json").read_text())["vocab_size"] == VOCAB_SIZE


@pytest.mark.parametrize("text", ["def f(x):\n\treturn 2048", "na\u00efve \u2192 \U0001f512", ""])
def test_any_text_decodes_to_itself(model: Path, text: str) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_chat_marker_is_one_token_and_ends_the_answer(model: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    config = json.loads((model / "config.json").read_text())
    assert tokenizer.encode("<|im_end|>").ids == [config["eos_token_id"]]


def test_chat_template_opens_the_answer_and_shows_tools(model: Path) -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment().from_string((model / "chat_template.jinja").read_text())
    text = template.render(
        tools=[{"type": "function", "function": {"name": "read"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "read"}}]},
        ],
        add_generation_prompt=True,
    )
    assert text.startswith("<|im_start|>system\n# Tools\n")
    assert "<|im_start|>user\nhi<|im_end|>\n" in text
    assert '<tool_call>\n{"name": "read"}\n</tool_call>' in text
    assert text.endswith("<|im_start|>assistant\n")
