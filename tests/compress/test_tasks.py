"""Generated contexts: their answers are in them, once, and lengths are as asked."""

from __future__ import annotations

import re

import pytest

from holdfast.compress.tasks import make_sample, task_names
from holdfast.errors import ConfigError

NUM_TOKENS = 600
SEEDS = range(5)


def _count(text: str) -> int:
    return len(text.split())


def _text(task: str, seed: int) -> str:
    return "".join(turn.text for turn in make_sample(task, seed, NUM_TOKENS, _count).turns)


@pytest.mark.parametrize("task", task_names())
def test_length_is_nearly_what_is_asked(task: str) -> None:
    for seed in SEEDS:
        assert NUM_TOKENS - 90 <= _count(_text(task, seed)) <= NUM_TOKENS


@pytest.mark.parametrize("task", task_names())
def test_equal_seeds_give_equal_samples(task: str) -> None:
    assert make_sample(task, 3, 400, _count) == make_sample(task, 3, 400, _count)
    assert _text(task, 3) != _text(task, 4)


@pytest.mark.parametrize("task", task_names())
def test_answers_are_in_the_text_before_their_question(task: str) -> None:
    for seed in SEEDS:
        shown = ""
        for turn in make_sample(task, seed, NUM_TOKENS, _count).turns:
            shown += turn.text
            assert turn.questions
            for question in turn.questions:
                assert question.answer.startswith(" ")
                for part in question.answer[1:].split(" and "):
                    assert part in shown


@pytest.mark.parametrize("task", ["single", "multi-key", "multi-query", "multi-turn"])
def test_number_of_a_thing_is_the_one_in_the_text(task: str) -> None:
    for seed in SEEDS:
        text = _text(task, seed)
        for turn in make_sample(task, seed, NUM_TOKENS, _count).turns:
            for question in turn.questions:
                assert re.findall(rf"{question.lead.lower()} (\d+)", text.lower()) == [
                    question.answer[1:]
                ]


def test_later_turns_ask_about_earlier_ones() -> None:
    for task in ("multi-turn", "agent"):
        for seed in SEEDS:
            first, second = make_sample(task, seed, NUM_TOKENS, _count).turns
            earlier, own = second.questions
            assert earlier.answer[1:] in first.text
            assert own.answer[1:] in second.text
            assert own.answer[1:] not in first.text


def test_variables_lead_to_the_value() -> None:
    for seed in SEEDS:
        text = _text("variable-tracking", seed)
        (question,) = make_sample("variable-tracking", seed, NUM_TOKENS, _count).turns[0].questions
        values = dict(re.findall(r"VAR (\w) = (?:VAR )?(\w+)\.", text))
        name = question.lead.split()[1]
        for _ in range(2):
            name = values[name]
        assert values[name] == question.answer[1:]


def test_frequent_word_is_the_most_frequent() -> None:
    for seed in SEEDS:
        words = re.findall(r"Word: (\w+)\.", _text("frequent-words", seed))
        (question,) = make_sample("frequent-words", seed, NUM_TOKENS, _count).turns[0].questions
        assert max(words, key=words.count) == question.answer[1:]
        assert words.count(question.answer[1:]) == 12


def test_unknown_task_and_short_context_are_errors() -> None:
    with pytest.raises(ConfigError, match="no task is called 'needle'") as caught:
        make_sample("needle", 0, 100, _count)
    assert "single" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="facts of task 'table' alone are longer than 9 tokens"):
        make_sample("table", 0, 9, _count)
