"""What gates are trained on: sessions and generated samples as tokens with labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.bench.model import build_tiny_model
from holdfast.compress.encoded import EncodedQuestion, EncodedSample, EncodedTurn
from holdfast.compress.gates.training_data import sample_batches, session_batches
from holdfast.compress.model_files import load_model
from holdfast.errors import ConfigError

MESSAGES = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "one two three"},
    {"role": "assistant", "content": "four five"},
    {"role": "user", "content": "six"},
    {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "not answered"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(build_tiny_model(tmp_path_factory.mktemp("model")))[1]


def _file(path: Path, *sessions: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in sessions))
    return path


def _labelled(tokenizer: Any, labels: list[int]) -> str:
    return str(tokenizer.decode([label for label in labels if label != -100]))


def test_answers_of_a_session_are_labels(tokenizer: Any, tmp_path: Path) -> None:
    path = _file(tmp_path / "s.jsonl", MESSAGES, MESSAGES[:3])
    whole, short = session_batches(tokenizer, path, 1000)
    text = tokenizer.apply_chat_template(MESSAGES[:5], tokenize=False)
    assert text.startswith(tokenizer.decode(whole.tokens[0].tolist()))
    assert tokenizer.decode(whole.tokens[0].tolist()).endswith("assistant\nseven")
    assert _labelled(tokenizer, whole.labels[0].tolist()) == "four fiveseven"
    assert _labelled(tokenizer, short.labels[0].tolist()) == "four five"
    asked = whole.labels != -100
    assert whole.labels[asked].equal(whole.tokens[asked])


def test_long_session_is_cut_and_loses_no_answer(tokenizer: Any, tmp_path: Path) -> None:
    path = _file(tmp_path / "s.jsonl", MESSAGES)
    (whole,) = session_batches(tokenizer, path, 1000)
    cut = session_batches(tokenizer, path, 16)
    assert all(batch.tokens.shape[1] <= 16 for batch in cut)
    assert all((batch.labels[:, 1:] != -100).any() for batch in cut)
    kept = "".join(_labelled(tokenizer, batch.labels[0].tolist()) for batch in cut)
    assert kept == _labelled(tokenizer, whole.labels[0].tolist())


def test_answers_of_samples_are_labels() -> None:
    asked = EncodedQuestion((5, 6), (7, 8))
    turns = (
        EncodedTurn((1, 2), ()),
        EncodedTurn((3,), (asked, EncodedQuestion((9,), (4,)))),
    )
    (batch,) = sample_batches([EncodedSample("own", 0, turns)])
    assert batch.tokens.tolist() == [[1, 2, 3, 5, 6, 7, 8, 9, 4]]
    assert batch.labels.tolist() == [[-100] * 5 + [7, 8, -100, 4]]


def test_samples_without_questions_are_left_out() -> None:
    assert sample_batches([EncodedSample("own", 0, (EncodedTurn((1, 2), ()),))]) == []


def test_sessions_without_answers_are_errors(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"s.jsonl: line 2: no answer follows"):
        session_batches(tokenizer, _file(tmp_path / "s.jsonl", MESSAGES, MESSAGES[:2]), 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        session_batches(tokenizer, tmp_path / "none", 100)


def test_template_that_rewrites_answers_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    """As templates do that leave out the reasoning of past answers."""
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.role }}: "
            "{{ m.content if m.role != 'assistant' else 'cut' }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
        with pytest.raises(ConfigError, match="line 1: the chat template changes an answer"):
            session_batches(tokenizer, _file(tmp_path / "s.jsonl", MESSAGES), 100)
    finally:
        tokenizer.chat_template = own
