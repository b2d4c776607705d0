"""Evaluation against the model's own logits, on a tiny model with a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compress.layers import tiny_model, tokens

from holdfast.bench.model import build_tiny_model
from holdfast.compress.attention import retained_mass, window_attention
from holdfast.compress.encoded import (
    EncodedQuestion,
    EncodedSample,
    EncodedTurn,
    encode_sample,
    read_sessions,
)
from holdfast.compress.evaluation import evaluate
from holdfast.compress.methods import find_method, method_names
from holdfast.compress.model_files import load_model
from holdfast.compress.outcome import FULL
from holdfast.compress.session import Session
from holdfast.compress.tasks import make_sample
from holdfast.errors import ConfigError

FIRST, SECOND = tuple(tokens(1, 150)), tuple(tokens(2, 60))
ASKED, ANSWER = tuple(tokens(3, 9)), tuple(tokens(4, 4))
QUESTION = EncodedQuestion(ASKED, ANSWER)
SAMPLE = EncodedSample("own", 5, (EncodedTurn(FIRST, ()), EncodedTurn(SECOND, (QUESTION,) * 2)))
ONE_TURN = EncodedSample("own", 5, (EncodedTurn(FIRST, (QUESTION,)),))


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load_model(build_tiny_model(tmp_path_factory.mktemp("model")))


def _nll(model: Any, context: tuple[int, ...]) -> float:
    """Mean -log p of the answer, from one plain call of the model."""
    ids = torch.tensor([[*context, *ASKED, *ANSWER]])
    with torch.no_grad():
        log_p = model(ids).logits[0].log_softmax(-1)
    first = len(context) + len(ASKED) - 1
    return -sum(float(log_p[first + i, token]) for i, token in enumerate(ANSWER)) / len(ANSWER)


def test_full_cache_has_the_models_own_likelihood(model: Any) -> None:
    full = next(evaluate(model, [SAMPLE], [], []))
    assert (full.method, full.share, full.turn, full.question) == (FULL, 1.0, 1, 0)
    assert full.nll == pytest.approx(_nll(model, (*FIRST, *SECOND)), abs=1e-5)
    assert not full.is_exact
    assert full.retained_mean == full.retained_min == pytest.approx(1)


def test_greedy_answer_is_exact(model: Any) -> None:
    session = Session(model)
    session.append(FIRST)
    answer = tuple(session.answer(ASKED, max_tokens=4))
    for expected, is_exact in ((answer, True), ((*answer[:3], (answer[3] + 1) % 97), False)):
        question = EncodedQuestion(ASKED, expected)
        sample = EncodedSample("own", 0, (EncodedTurn(FIRST, (question,)),))
        assert [outcome.is_exact for outcome in evaluate(model, [sample], [], [])] == [is_exact]


@pytest.mark.parametrize("name", method_names())
def test_whole_budget_costs_nothing(model: Any, name: str) -> None:
    full, whole, *_ = evaluate(model, [SAMPLE], [find_method(name)], [1.0])
    assert whole.nll == pytest.approx(full.nll, abs=1e-5)
    assert whole.retained_min == pytest.approx(1)


def test_each_method_and_share_answers_each_question(model: Any) -> None:
    methods = [find_method("snapkv"), find_method("adakv")]
    found = list(evaluate(model, [SAMPLE], methods, [0.2, 0.5]))
    asked = [(outcome.question, outcome.method, outcome.share) for outcome in found]
    each = [(FULL, 1.0), *((m, share) for m in ("snapkv", "adakv") for share in (0.2, 0.5))]
    assert asked == [(number, *pair) for number in (0, 1) for pair in each]
    first, second = found[: len(each)], found[len(each) :]
    assert [outcome.nll for outcome in first] == [outcome.nll for outcome in second]
    assert all(a.nll != first[0].nll and a.retained_min < 1 for a in first[1:])


def test_outcome_is_that_of_a_session_compacted_by_hand(model: Any) -> None:
    method = find_method("adakv")
    _, found, *_ = evaluate(model, [SAMPLE], [method], [0.3])
    session = Session(model)
    for turn in (FIRST, SECOND):
        session.append(turn)
        session.compact(method, 0.3)
    logits = session.ask((*ASKED, *ANSWER[:-1]), num_logits=len(ANSWER))
    rows = logits.log_softmax(-1)
    assert found.nll == pytest.approx(
        -sum(float(rows[i, token]) for i, token in enumerate(ANSWER)) / len(ANSWER)
    )


@pytest.mark.parametrize("name", ["snapkv", "adakv"])  # removed entries, masked entries
def test_retained_attention_is_that_of_the_full_cache(model: Any, name: str) -> None:
    method = find_method(name)
    _, found = evaluate(model, [ONE_TURN], [method], [0.3])
    full = Session(model)
    full.append(FIRST)
    keep = method.keep(full.cached_layers(), full.fork().compact(method, 0.3).budget)
    expected = []
    for layer, kept in zip(full.queries_of((*ASKED, *ANSWER[:-1])), keep, strict=True):
        weights = window_attention(
            layer.queries, layer.keys, torch.ones(2, 12, 150, dtype=torch.bool), layer.scaling
        )
        expected += retained_mass(weights, kept).tolist()
    assert found.retained_mean == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert found.retained_min == pytest.approx(min(expected), abs=1e-5)


def test_sample_and_question_make_the_chat_prompt(chat: tuple[Any, Any]) -> None:
    _, tokenizer = chat
    sample = make_sample("multi-turn", 0, 300, lambda text: len(text) // 4)
    encoded = encode_sample(tokenizer, sample)
    question, asked = sample.turns[1].questions[0], encoded.turns[1].questions[0]
    ids = [*encoded.turns[0].tokens, *encoded.turns[1].tokens, *asked.tokens, *asked.answer]
    context = sample.turns[0].text + sample.turns[1].text
    prompt = f"<|im_start|>user\n{context}\n{question.text}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == prompt + question.lead + question.answer


def test_tokenizer_without_template_gives_plain_text(chat: tuple[Any, Any]) -> None:
    _, tokenizer = chat
    plain = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    encoded = encode_sample(plain, make_sample("single", 0, 100, lambda text: len(text) // 4))
    text = plain.decode([*encoded.turns[0].tokens[-2:], *encoded.turns[0].questions[0].tokens])
    assert "\n\nWhat is the magic number" in text
    assert "<|im_start|>" not in text


MESSAGES = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "one two three"},
    {"role": "assistant", "content": "four five"},
    {"role": "user", "content": "six"},
    {"role": "assistant", "content": "seven"},
]


def _sessions(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_recorded_session_asks_for_its_own_answers(chat: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = chat
    path = _sessions(tmp_path / "sessions.jsonl", {"messages": MESSAGES, "model": "m"})
    (sample,) = read_sessions(tokenizer, path)
    assert [tokenizer.decode(t.questions[0].answer) for t in sample.turns] == ["four five", "seven"]
    shown: list[int] = []
    for turn, end in zip(sample.turns, (2, 4), strict=True):
        shown += turn.tokens
        prompt = tokenizer.apply_chat_template(
            MESSAGES[:end], add_generation_prompt=True, tokenize=False
        )
        assert tokenizer.decode([*shown, *turn.questions[0].tokens]) == prompt
    assert len(list(evaluate(model, [sample], [find_method("snapkv")], [0.5]))) == 4


def test_message_of_tool_calls_alone_asks_for_nothing(
    chat: tuple[Any, Any], tmp_path: Path
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    messages = [*MESSAGES[:2], called, {"role": "tool", "content": "six"}, MESSAGES[4]]
    path = _sessions(tmp_path / "sessions.jsonl", {"messages": messages})
    (sample,) = read_sessions(chat[1], path)
    assert [chat[1].decode(t.questions[0].answer) for t in sample.turns] == ["seven"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": [{"role": "user", "content": None}]}, "line 1: content of message 0"),
        ({"messages": [{"role": "user", "content": [1]}]}, "line 1: content of message 0"),
        ({"messages": [{"role": "user", "content": "x"}]}, "line 1: no answer follows"),
        ({"turns": []}, "line 1: no session: .*missing required field `messages`"),
    ],
)
def test_wrong_session_names_file_and_line(
    chat: tuple[Any, Any], tmp_path: Path, line: object, message: str
) -> None:
    path = _sessions(tmp_path / "sessions.jsonl", line)
    with pytest.raises(ConfigError, match=f"sessions.jsonl: {message}"):
        read_sessions(chat[1], path)


def test_missing_and_empty_session_files_are_errors(chat: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_sessions(chat[1], tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="no sessions"):
        read_sessions(chat[1], _sessions(tmp_path / "empty.jsonl"))


def test_files_that_are_no_model_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        load_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_model(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 60)
    with pytest.raises(ConfigError, match=r"broken.gguf: cannot be loaded"):
        load_model(tmp_path / "broken.gguf")


@pytest.mark.parametrize("content", [b"", bytes(range(100))])
def test_broken_weights_are_an_error(tmp_path: Path, content: bytes) -> None:
    model = build_tiny_model(tmp_path)
    (weights,) = model.glob("*.safetensors")
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be loaded: ") as caught:
        load_model(model)
    assert caught.value.hint is None  # no library is missing
