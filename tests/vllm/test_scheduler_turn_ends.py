"""Turn ends read from outputs, also of an idle engine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.tool_calls.turn_end import parse_turn_end
from holdfast.vllm.output_tail import OutputTails

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig

pytestmark = pytest.mark.engine

_READ = '<tool_call>\n{"name": "Read", "arguments": {"path": "a.py"}}\n</tool_call>'


def _watch(rig: Rig, decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Give the rig a tokenizer; returns the kinds of pauses that it learns, in order."""
    scheduler = rig.scheduler
    scheduler._reader._has_tokenizer = True
    scheduler._reader.answers = OutputTails(lambda: lambda tail: parse_turn_end(decode(tail)))
    returns, kinds = scheduler._runtime.returns, []
    observe = returns.observe

    def note(gap: Any, *args: Any, **kwargs: Any) -> None:
        kinds.append(gap.kind)
        observe(gap, *args, **kwargs)

    returns.observe = note
    return kinds


def _await_findings(rig: Rig, number: int = 1) -> None:
    while len(rig.scheduler._reader.answers._findings) < number:
        time.sleep(0.001)


def test_pause_of_a_single_client_has_its_kind(rig: Rig) -> None:
    kinds = _watch(rig, lambda tail: _READ)
    request = rig.turn("0", "abc", num_outputs=20)
    for turn in range(1, 6):
        _await_findings(rig)
        request = rig.turn(str(turn), rig.following(request, "x"), num_outputs=20)
    assert kinds == ["read"] * 5


def test_pause_shorter_than_the_reading_has_its_kind(rig: Rig) -> None:
    may_read = threading.Event()

    def decode(tail: Sequence[int]) -> str:
        may_read.wait()
        return _READ

    kinds = _watch(rig, decode)
    first = rig.turn("0", "abc", num_outputs=20)
    rig.turn("1", rig.following(first, "x"), num_outputs=20)
    assert kinds == []
    may_read.set()
    _await_findings(rig, 2)
    rig.turn("2", "other")
    assert kinds == ["read"]
    (session, _) = rig.sessions
    assert session.gap.kind == "read"


def test_unreadable_output_gives_pause_of_unknown_kind(rig: Rig) -> None:
    def decode(tail: Sequence[int]) -> str:
        raise ValueError("no such token")

    kinds = _watch(rig, decode)
    request = rig.turn("0", "abc", num_outputs=20)
    while not rig.scheduler._reader.answers._is_broken:
        time.sleep(0.001)
    for turn in range(1, 3):
        request = rig.turn(str(turn), rig.following(request, "x"), num_outputs=20)
    assert kinds == ["unknown"]


_TASK = "Look for callers of parse() in src, and list them."
_DELEGATE = (
    '<tool_call>\n{"name": "Task", "arguments": {"description": "look", "prompt": '
    f"{json.dumps(_TASK)}}}}}\n</tool_call>"
)


@pytest.mark.parametrize(
    ("prompt", "state"), [(f"You help. {_TASK} Thanks.", "closed"), ("Hello?", "human_away")]
)
def test_sub_agent_without_id_found_by_its_task(rig: Rig, prompt: str, state: str) -> None:
    answers, may_read = iter([_DELEGATE, "Found none."]), threading.Event()

    def read_prompt(tokens: Sequence[int]) -> str:
        may_read.wait()  # else a step of the child's turn may already take the finding
        return prompt

    _watch(rig, lambda tail: next(answers))
    rig.scheduler._reader.prompts = OutputTails(lambda: read_prompt)
    rig.turn("parent", "abcd", num_outputs=20)
    _await_findings(rig)
    rig.turn("child", "xyz", num_outputs=20)
    _await_findings(rig)
    may_read.set()
    while rig.sessions[1] not in dict(rig.scheduler._reader.prompts.unread()):
        time.sleep(0.001)
    rig.turn("other", "opq")
    parent, child, _ = rig.sessions
    assert (parent.state.value, child.state.value) == ("at_tool", state)
    assert child.has_reservation == (state == "human_away")
