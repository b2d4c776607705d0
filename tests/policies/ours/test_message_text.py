"""Roles of messages are seen without decoding them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.request_body import RequestBody
from holdfast.policies.ours.message_text import is_from_system, shows_no_system
from holdfast.policies.ours.prompt_view import PromptView

ROLES = st.sampled_from(["user", "assistant", "tool", "system", "developer", "users"])
INNER = st.text(max_size=6) | st.fixed_dictionaries({"role": ROLES, "a": st.none()}) | ROLES
MESSAGES = st.permutations(["role", "content", "type"]).flatmap(
    lambda names: st.fixed_dictionaries({n: ROLES if n == "role" else INNER for n in names})
)


@given(MESSAGES, st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_a_system_message_shows_no_other_role(message: object, blanks: tuple[str, str]) -> None:
    text = json.dumps(message, separators=blanks).encode()
    assert not (shows_no_system(text) and is_from_system(message))


def test_most_messages_show_their_role() -> None:
    for message in ({"role": "user", "content": "a"}, {"content": "a", "role": "tool"}):
        for blanks in ((",", ":"), (", ", ": ")):
            assert shows_no_system(json.dumps(message, separators=blanks).encode())


def test_a_key_that_ends_like_a_role_shows_none() -> None:
    message = {"role": "system", '"role': "user"}
    assert not shows_no_system(json.dumps(message, separators=(",", ":")).encode())


def test_only_the_head_of_a_prompt_is_read_for_the_system() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    body = RequestBody.parse(json.dumps({"messages": messages}).encode())
    assert body is not None
    view = PromptView(body)
    read: list[str] = []
    view.map_head(lambda text: read.append(text) or text)  # type: ignore[func-returns-value]
    assert (read, view._messages, view.text()) == (["a"], None, None)
    view.map_head(str.upper)
    assert json.loads(view.text() or b"")["messages"] == [
        {**messages[0], "content": "A"},
        messages[1],
    ]
