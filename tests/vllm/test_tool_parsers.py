"""Our parsing of tool calls against every tool parser of vLLM."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.tool_calls.call_samples import CALLS, UNNAMED

from holdfast.tool_calls.turn_end import SpecialTokens, parse_turn_end

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

# These parse tokens, or need a library of the model's maker.
NEEDS_MORE_THAN_TEXT = frozenset({"openai", "cohere_command3", "cohere_command4"})
_SPECIAL_TOKEN = re.compile(r"<[^<>\s=\"]{1,60}>|\]<\]minimax\[>\[|\[TOOL_CALLS\]")
_OFTEN_ASKED_FOR = ("<|python_tag|>", "[ARGS]")


def registered_parsers() -> set[str]:
    from vllm.tool_parsers import ToolParserManager

    return set(ToolParserManager.list_registered())


def tokenizer_for(text: str) -> PreTrainedTokenizerFast:
    """One token a byte, and one for each tag or special token of `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*dict.fromkeys(_SPECIAL_TOKEN.findall(text)), *_OFTEN_ASKED_FOR])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def calls_as_the_engine_reads_them(parser: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    parameters = {"type": "object", "properties": {"command": {"type": "string"}}}
    request = ChatCompletionRequest(
        model="m",
        messages=[{"role": "user", "content": "x"}],
        tools=[{"type": "function", "function": {"name": "bash", "parameters": parameters}}],
        tool_choice="auto",
    )
    reader = ToolParserManager.get_tool_parser(parser)(tokenizer_for(text), request.tools)
    read = reader.extract_tool_calls(text, request)
    return [(call.function.name, json.loads(call.function.arguments)) for call in read.tool_calls]


def test_every_parser_has_a_sample() -> None:
    missing = registered_parsers() - CALLS.keys()
    assert not missing, (
        f"add a call that {sorted(missing)} read to tests/tool_calls/call_samples.py"
    )


@pytest.mark.parametrize("parser", sorted(CALLS.keys() - UNNAMED - NEEDS_MORE_THAN_TEXT))
def test_our_parsing_agrees_with_vllms_tool_parser(parser: str) -> None:
    if parser not in registered_parsers():
        pytest.skip(f"this vLLM has no parser {parser}")
    text, message_end = CALLS[parser]
    try:
        [(name, arguments)] = calls_as_the_engine_reads_them(parser, text)
    except RuntimeError as error:
        if "extension" not in str(error):
            raise
        pytest.skip(f"this vLLM was built without it: {error}")
    assert (name, arguments["command"].strip()) == ("bash", "git status")
    assert [call.name for call in parse_turn_end(text + message_end).calls] == [name]


def test_end_tokens_distinguished_from_other_special_ones() -> None:
    from holdfast.vllm.output_tail import special_tokens_of

    tokenizer = tokenizer_for("<|fin|><|run|>")
    tokenizer.eos_token = "<|fin|>"
    tokens = special_tokens_of(tokenizer)
    assert tokens.ends == {"<|fin|>"}
    assert {"<|run|>", "[ARGS]"} <= tokens.others
    assert special_tokens_of(object()) == SpecialTokens()


def test_end_token_known_by_its_id_alone() -> None:
    from holdfast.vllm.output_tail import special_tokens_of

    tokenizer = SimpleNamespace(
        eos_token_id=2,
        pad_token_id=-1,
        all_special_tokens=["<s>", "</s>"],
        convert_ids_to_tokens=lambda ids: [["<unk>", "<s>", "</s>"][i] for i in ids],
    )
    tokens = special_tokens_of(tokenizer)
    assert tokens == SpecialTokens(frozenset({"</s>"}), frozenset({"<s>"}))


def test_output_read_with_its_tokenizers_special_tokens(tmp_path: Path) -> None:
    from vllm.config import ModelConfig

    from holdfast.bench.model import build_tiny_model
    from holdfast.vllm.output_tail import reader_of

    model = build_tiny_model(tmp_path / "model")
    tokenizer = tokenizer_for("<|fin|><run>")
    tokenizer.eos_token = "<|fin|>"
    tokenizer.save_pretrained(model)
    read = reader_of(ModelConfig(model=str(model), tokenizer=str(model), dtype="float32"))
    assert read(tokenizer.encode("Done.<|fin|>")).kind == "human"
    assert read(tokenizer.encode("I look.<run>ls<|fin|>")).kind == "unknown"
