"""Which sessions' answers a prompt's history repeats; a token is a letter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.answer_marks import MAX_TAIL_TOKENS, AnswerMarks

Message = tuple[str, str]
ANSWER = "The constant is two now."


def tokens_of(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def chat(messages: Sequence[Message]) -> str:
    """A template that ends all messages alike."""
    return "".join(f"<{role}>{text}¶" for role, text in messages) + "<assistant>"


def instruct(messages: Sequence[Message]) -> str:
    """A template that ends the model's messages only."""
    ends = {"assistant": "¶", "user": "[/INST]", "system": "\n"}
    return "".join(f"{text}{ends[role]}" for role, text in messages)


TEMPLATES = [chat, instruct]


def marks_of(answers: dict[str, str], prompt: str) -> AnswerMarks[str]:
    marks: AnswerMarks[str] = AnswerMarks()
    for session, answer in answers.items():
        marks.put(session, tokens_of(f"{prompt}{answer}¶"), len(answer) + 1)
    return marks


@pytest.mark.parametrize("template", TEMPLATES)
def test_answer_in_a_rewritten_history_is_found(template: object) -> None:
    assert callable(template)
    marks = marks_of({"a": ANSWER}, template([("system", "old"), ("user", "Make it two.")]))
    history = [("system", "new"), ("user", "Make it 2."), ("assistant", ANSWER)]
    history.append(("user", "And now make it three."))
    assert marks.repeated_in(tokens_of(template(history))).keys() == {"a"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_answer_that_a_user_quotes_is_not_the_models(template: object) -> None:
    assert callable(template)
    marks = marks_of({"a": ANSWER}, template([("user", "Make it two.")]))
    quoted = [("user", "hi"), ("assistant", "hello, what is it?"), ("user", f"It said: {ANSWER}")]
    assert not marks.repeated_in(tokens_of(template(quoted)))
    quoted += [("assistant", "well, so it did"), ("user", "Good.")]
    assert not marks.repeated_in(tokens_of(template(quoted)))


def test_what_stood_before_equal_answers_tells_them_apart() -> None:
    marks: AnswerMarks[str] = AnswerMarks()
    for session in "abc":
        tail = chat([("user", f"task {session} is done")]) + ANSWER + "¶"
        marks.put(session, tokens_of(tail), len(ANSWER) + 1)
    history = [("user", "task b is done"), ("assistant", ANSWER), ("user", "and now?")]
    found = marks.repeated_in(tokens_of(chat(history)))
    assert found.keys() == set("abc")
    assert max(found, key=lambda session: found[session]) == "b"


def test_short_and_forgotten_answers_are_not_found() -> None:
    marks = marks_of({"short": "Done.", "a": ANSWER, "b": ANSWER}, chat([("user", "Go on.")]))
    marks.drop("a")
    history = [("user", "x"), ("assistant", "Done."), ("assistant", ANSWER), ("user", "y")]
    assert marks.repeated_in(tokens_of(chat(history))).keys() == {"b"}
    marks.put("b", tokens_of("ok¶"), 3)
    assert not marks.repeated_in(tokens_of(chat(history)))
    assert not marks._tails and not marks._by_end and not marks._stops


TEXT = st.text("ab c", min_size=1, max_size=40)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXT), max_size=8),
    TEXT.filter(lambda text: len(text) >= 16),
    TEXT,
)
def test_found_iff_the_model_said_it_in_this_history(
    history: list[Message], answer: str, task: str
) -> None:
    marks = marks_of({"a": answer}, chat([("user", task)]))
    prompt = chat([("system", "be brief"), *history, ("user", "go on")])
    said = [text for role, text in history if role == "assistant"]
    has_said = any(f"<assistant>{text}".endswith(answer[-15:]) for text in said)
    found = marks.repeated_in(tokens_of(prompt))
    assert ("a" in found) == has_said
    assert all(num <= MAX_TAIL_TOKENS for num in found.values())
