"""Outlines repeat what is known of a session's last prompts."""

from __future__ import annotations

import json

import pytest

from holdfast.core import prompt_outline
from holdfast.core.prompt_history import PromptHistory
from holdfast.core.prompt_outline import Outliner
from holdfast.core.request_body import RequestBody
from holdfast.core.volatile_text import VolatileKind, without

MESSAGES = [{"role": "user", "content": f"message {number}"} for number in range(8)]


def body_of(num_messages: int, prefix: str = "") -> RequestBody:
    said = [{**each, "content": prefix + each["content"]} for each in MESSAGES[:num_messages]]
    body = RequestBody.parse(json.dumps({"messages": said}).encode())
    assert body is not None
    return body


@pytest.fixture
def read_parts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The texts that were fingerprinted, with space for two in the shared memory."""
    found: list[bytes] = []
    part_of = prompt_outline._part_of

    def noted(where: prompt_outline._Where, text: bytes, *, has_marks: bool) -> object:
        found.append(text)
        return part_of(where, text, has_marks=has_marks)

    monkeypatch.setattr(prompt_outline, "_part_of", noted)
    monkeypatch.setattr(prompt_outline, "_MAX_PARTS", 2)
    return found


def test_only_new_parts_of_a_session_are_read(read_parts: list[bytes]) -> None:
    history = PromptHistory()
    for session in ("a", "b"):
        history.change(session, body_of(6, session))
    assert len(read_parts) == 12
    for session in ("a", "b"):
        history.change(session, body_of(8, session))
    assert len(read_parts) == 16


def test_known_parts_make_the_same_outline(read_parts: list[bytes]) -> None:
    outliner = Outliner()
    before = outliner.outline(body_of(6))
    after, alone = outliner.outline(body_of(8), [before]), Outliner().outline(body_of(8))
    assert after == alone
    assert all(one is other for one, other in zip(before.parts, after.parts, strict=False))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("billing", "x-anthropic-billing-header: cc_version=2.1.1; cch=1;\n"),
        ("git", "gitStatus: Current branch: main\n\ngitStatus: Recent commits:"),
    ],
)
def test_texts_looked_for_first_are_in_what_is_taken_out(kind: VolatileKind, text: str) -> None:
    assert without(f"before\n{text}", kind).strip() == "before"
