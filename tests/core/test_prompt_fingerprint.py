"""Where two prompts diverge, from their fingerprints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.prompt_fingerprint import PromptFingerprint, diverge

MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}),
    max_size=6,
)


def fingerprint(
    messages: list[Any], model: str = "m", tools: Any = None, system: Any = "s"
) -> PromptFingerprint:
    model, tools, system = (json.dumps(part) for part in (model, tools, system))
    texts = [json.dumps(message).encode() for message in messages]
    return PromptFingerprint.of(model.encode(), tools.encode(), system.encode(), texts)


@given(messages=MESSAGES, added=MESSAGES)
def test_a_prompt_that_only_grew_does_not_diverge(messages: list[Any], added: list[Any]) -> None:
    assert diverge(fingerprint(messages), fingerprint(messages + added)) is None
    assert diverge(fingerprint(messages + added), fingerprint(messages)) is None


@given(messages=MESSAGES.filter(bool), data=st.data())
def test_a_changed_message_is_found(messages: list[Any], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(messages) - 1))
    changed = [dict(message) for message in messages]
    changed[index]["content"] += "!"
    found = diverge(fingerprint(messages), fingerprint(changed))
    assert found is not None and (found.part, found.message) == ("messages", index)
    assert 0.0 <= found.shared_ratio < 1.0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": "n"}, "model"),
        ({"tools": [1]}, "tools"),
        ({"system": "t"}, "system"),
        ({"model": "n", "tools": [1]}, "model"),
        ({"tools": [1], "system": "t"}, "tools"),
    ],
)
def test_the_first_changed_part_counts(change: dict[str, Any], part: str) -> None:
    found = diverge(fingerprint([{"role": "user"}]), fingerprint([{"role": "tool"}], **change))
    assert found is not None and found.part == part


def test_what_is_shared_is_measured_by_size() -> None:
    first = [{"content": "x" * 1000}, {"content": "y" * 1000}]
    found = diverge(fingerprint(first), fingerprint([first[0], {"content": "z"}]))
    assert found is not None and found.shared_ratio == pytest.approx(0.5, abs=0.01)


def test_moved_cache_marks_are_no_change() -> None:
    block = {"type": "text", "text": 'say "cache_control": {}'}
    marked = {**block, "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    messages = [[{"role": "user", "content": [b]}] for b in (block, marked)]
    assert diverge(fingerprint(messages[0]), fingerprint(messages[1])) is None
    assert diverge(fingerprint([], system=[marked]), fingerprint([], system=[block])) is None


def test_text_in_a_block_is_the_same_text() -> None:
    alone = {"role": "user", "content": 'a "quoted" text'}
    block = {"role": "user", "content": [{"type": "text", "text": 'a "quoted" text'}]}
    assert diverge(fingerprint([alone]), fingerprint([block])) is None


def test_a_fingerprint_keeps_no_text() -> None:
    kept = fingerprint([{"role": "user", "content": "secret"}], system="secret")
    assert b"secret" not in repr(kept).encode()
