"""Tests of finding every tool call in a text, and of holding it back in time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tool_calls.call_samples import CALLS, UNNAMED

from holdfast.tool_calls.call_text import CallScanner, UnreadableCallError, calls_in

SAMPLES = sorted(set(CALLS) - UNNAMED)
PROSE = "I look at it first: 2 < 3, a[0] = {1}, [link](x), <b>bold</b> and List<String>.\n"


def sample(name: str) -> str:
    return "".join(CALLS[name])


def scanned(pieces: list[str]) -> tuple[str, tuple[str, ...]]:
    """What a scanner lets pass before the text ends, and the names of the calls it finds."""
    scanner, text, names = CallScanner(), "", []
    released = 0
    for piece in pieces:
        text += piece
        names += [found.call.name for found in scanner.feed(piece)]
        if names:
            break
        released = scanner.num_chars if scanner.held_from is None else scanner.held_from
    if not names:
        names += [found.call.name for found in scanner.end()]
    return text[:released], tuple(names)


@st.composite
def split(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_syntax_is_read(name: str) -> None:
    assert {call.name for call in calls_in(sample(name))} == {"bash"}
    assert all("git status" in call.arguments for call in calls_in(sample(name)))


@pytest.mark.parametrize("name", sorted(UNNAMED))
def test_calls_of_unknown_syntax_are_unreadable(name: str) -> None:
    with pytest.raises(UnreadableCallError):
        calls_in(sample(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_no_character_of_a_call_is_let_pass(name: str) -> None:
    text = "I look.\n" + sample(name)
    if name in ("hermes", "qwen3_json"):
        text = sample(name)
    for pieces in (list(text), [text]):
        passed, names = scanned(pieces)
        assert set(names) == {"bash"}
        assert "bash" not in passed and "git" not in passed


@given(st.data(), st.sampled_from(SAMPLES))
def test_pieces_do_not_matter(data: st.DataObject, name: str) -> None:
    text = data.draw(st.sampled_from(["", PROSE])) + sample(name)
    passed, names = scanned(data.draw(split(text)))
    assert set(names) == {"bash"}
    assert "bash" not in passed and "git" not in passed


def test_prose_passes_as_it_comes() -> None:
    scanner = CallScanner()
    scanner.feed(PROSE)
    assert scanner.held_from is None and scanner.end() == ()


def test_objects_that_are_no_calls_pass_when_they_end() -> None:
    scanner = CallScanner()
    assert scanner.feed('See {"a": "}", "b": {') == ()
    assert scanner.held_from == len("See ")
    assert scanner.feed('"c": 1}} and on') == ()
    assert scanner.held_from is None


def test_arguments_are_whole_however_long() -> None:
    text = json.dumps({"name": "write", "arguments": {"text": "x" * 9000, "path": "/etc"}})
    (call,) = calls_in(f"<tool_call>{text}</tool_call>")
    assert json.loads(call.arguments)["path"] == "/etc"


def test_each_of_several_sections_is_read() -> None:
    text = "<|tool_call_start|>[rm()]<|tool_call_end|><|tool_call_start|>[ls()]<|tool_call_end|>"
    assert {call.name for call in calls_in(text)} == {"rm", "ls"}


def test_calls_inside_of_objects_are_found() -> None:
    inner = {"name": "rm", "arguments": {}}
    assert [call.name for call in calls_in(json.dumps({"calls": [{"x": inner}]}))] == ["rm"]


def test_too_many_calls_cannot_be_read() -> None:
    call = '<tool_call>{"name": "ls", "arguments": {}}</tool_call>'
    with pytest.raises(UnreadableCallError):
        calls_in(call * 33)


@pytest.mark.parametrize(
    "text",
    [
        '{"arguments": {"command": "git st',
        '<tool_call>{"na',
    ],
)
def test_calls_that_break_off_are_unreadable(text: str) -> None:
    with pytest.raises(UnreadableCallError):
        calls_in(text)


def test_much_text_takes_linear_time() -> None:
    for text in ("{" * 200_000, '{"a":' * 20_000, "<tool_call>" * 30, "[TOOL_CALLS]" + "[" * 10**5):
        try:
            calls_in(text)
        except UnreadableCallError:
            continue


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_list_of_calls_is_held_from_the_blank_before_it(blank: str) -> None:
    scanner = CallScanner()
    for piece in ("Done.\n", blank, "[read(path='a')]"):
        assert scanner.feed(piece) == ()
    assert scanner.held_from == len("Done.\n")
    assert [each.call.name for each in scanner.end()] == ["read"]
