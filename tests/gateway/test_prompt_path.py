"""Tests of prompt paths: equal beginnings match, whatever clients do to the JSON around them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.json_nesting import nesting_depth
from holdfast.core.request_body import RequestBody
from holdfast.gateway.prompt_path import PromptPath, nests_deeper, prompt_path, with_salt


def body_of(value: Any) -> RequestBody:
    body = RequestBody.parse(json.dumps(value, separators=(",", ":")).encode())
    assert body is not None
    return body


def path_of(body: dict[str, Any], tenant: str = "") -> PromptPath:
    return prompt_path(body_of(body), tenant)


def num_shared(one: PromptPath, other: PromptPath) -> int:
    return sum(a == b for a, b in zip(one.keys, other.keys, strict=False))


def user(text: str, **others: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text, **others}]}


@pytest.mark.parametrize("field", ["messages", "input"])
def test_a_longer_conversation_extends_the_shorter_path(field: str) -> None:
    messages = [user("a" * 9000), user("b"), user("c")]
    short, long = (path_of({field: messages[:n]}) for n in (2, 3))
    assert long.keys[: len(short)] == short.keys
    assert long.ends[: len(short)] == short.ends
    assert len(long) == len(short) + 1
    assert len(short) == 4  # three pieces of at most 4096 bytes, and the second message


def test_cache_marks_that_wander_do_not_matter() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    turns = [
        {"system": [{"type": "text", "text": "s", **mark}], "messages": [user("a", **mark)]},
        {"system": [{"type": "text", "text": "s"}], "messages": [user("a"), user("b", **mark)]},
    ]
    one, other = map(path_of, turns)
    assert num_shared(one, other) == len(one) == 2


def test_a_text_that_becomes_a_block_for_its_mark_is_the_same() -> None:
    def plain(text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    mark = {"cache_control": {"type": "ephemeral"}}
    two = {"role": "user", "content": [user(text)["content"][0] for text in "ab"]}
    one, other, apart = (
        path_of({"messages": messages})
        for messages in (
            [plain("a"), two, user("b", **mark)],
            [plain("a"), two, plain("b"), user("c", **mark)],
            [user("a"), two, plain("b,"), user("c", **mark)],
        )
    )
    assert num_shared(one, other) == len(one) == 3
    assert num_shared(other, apart) == 2  # a lone block is its text even without a mark


def test_tools_and_system_prompt_come_first() -> None:
    head = {"tools": [{"name": "t" * 5000}], "system": "s" * 5000}
    one, other = (path_of({"messages": [user(text)], **head}) for text in "ab")
    assert num_shared(one, other) == len(one) - 1 == 4


def test_models_tenants_and_salts_share_nothing() -> None:
    paths = [
        path_of({"model": "m", "prompt": "p"}),
        path_of({"model": "n", "prompt": "p"}),
        path_of({"model": "m", "prompt": "p"}, "t"),
        path_of({"model": "m", "prompt": "p", "cache_salt": "s"}),
    ]
    assert len({path.keys[0] for path in paths}) == 4


def test_ends_are_those_of_messages_and_of_4096_bytes() -> None:
    first, second = {"role": "user", "content": "é" * 3000}, {"role": "user", "content": "b"}
    texts = [json.dumps(each, separators=(",", ":")) for each in (first, second)]
    path = path_of({"messages": [first, second]})
    sizes = list(map(len, texts))
    assert path.ends == (*range(4096, sizes[0], 4096), sizes[0], sum(sizes))
    assert path.num_bytes == sum(sizes)


def test_tenants_keys_stay_apart_even_where_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    class Colliding:
        def __init__(self, data: bytes) -> None: ...
        def update(self, data: bytes) -> None: ...
        def digest(self) -> bytes:
            return bytes(16)

    monkeypatch.setattr("holdfast.gateway.prompt_path.xxh3_128", Colliding)
    paths = [path_of({"model": "m", "prompt": "p"}, tenant) for tenant in ("a", "b")]
    assert paths[0].keys != paths[1].keys


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_body_is_read_or_passed_over(body: bytes) -> None:
    read = RequestBody.parse(body)
    if read is not None:
        prompt_path(read, "")


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda key: key != "cache_salt"),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_a_salted_body_keeps_every_other_field(body: dict[str, Any]) -> None:
    salted = json.loads(with_salt(body_of(body), "blue"))
    assert salted == body | {"cache_salt": "blue"}


_NESTED = st.recursive(
    st.none() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=3), _NESTED), st.integers(1, 6))
def test_depth_in_parts_is_that_of_the_whole(value: Any, most: int) -> None:
    body = body_of(value)
    assert nests_deeper(body, most) == (nesting_depth(body.text) > most)


@given(_NESTED, st.integers(0, 12), st.integers(1, 14), st.sampled_from([None, 1]))
def test_depth_below_the_followed_levels_counts(
    value: Any, more: int, most: int, indent: int | None
) -> None:
    for number in range(more):
        value = {"[{": ']}"\\', "v": value} if number % 2 else ["[[", value]
    for name in ("messages", "other"):
        body = RequestBody.parse(json.dumps({name: value}, indent=indent).encode())
        assert body is not None
        assert nests_deeper(body, most) == (nesting_depth(body.text) > most)
