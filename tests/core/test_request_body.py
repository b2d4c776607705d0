"""The one reader of request bodies: it reads what vLLM reads, and nothing twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.request_body import RequestBody

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)


def equal(one: Any, other: Any) -> bool:
    """As JSON texts, so that NaN equals itself."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(OBJECTS, st.booleans())
def test_fields_are_those_that_json_has(found: dict[str, Any], is_ascii: bool) -> None:
    body = RequestBody.parse(json.dumps(found, ensure_ascii=is_ascii).encode())
    assert body is not None
    assert equal(body.values(found), found)
    assert all(equal(body.value(name), found[name]) for name in found)
    assert not body.raw("missing") and body.value("missing") is None


@given(OBJECTS, st.text(max_size=4), VALUES)
def test_a_changed_field_leaves_the_others(found: dict[str, Any], name: str, value: Any) -> None:
    body = RequestBody.parse(json.dumps(found).encode())
    assert body is not None
    assert equal(json.loads(body.with_field(name, value)), {**found, name: value})


@given(st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_no_object_is_none(text: bytes) -> None:
    body = RequestBody.parse(text)
    try:
        expected = json.loads(text)
    except ValueError:
        assert body is None
        return
    assert (body is not None) == (isinstance(expected, dict) and text.lstrip().startswith(b"{"))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'{"a": [1, "x", {"b": []}]}', [b"1", b'"x"', b'{"b": []}']),
        (b'{"a": "text"}', [b'"text"']),
        (b'{"a": null}', []),
        (b"{}", []),
        (b'{"a": [NaN, 2]}', [b"NaN", b"2"]),
    ],
)
def test_items_are_the_elements_texts(text: bytes, items: list[bytes]) -> None:
    body = RequestBody.parse(text)
    assert body is not None
    found = [bytes(item) for item in body.items("a")]
    assert found == items or found == [b"[%s]" % b", ".join(items)]


def test_last_of_equal_keys_counts() -> None:
    body = RequestBody.parse(b'{"a": 1, "a": 2}')
    assert body is not None and body.value("a") == 2


def test_deep_text_is_read_or_none() -> None:
    for depth in (900, 100_000):
        RequestBody.parse(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


def test_a_new_field_leaves_all_other_bytes() -> None:
    body = RequestBody.parse(b' {"b" : 1,  "a": [ ], "a": [2]}\n ')
    assert body is not None
    assert body.with_field("c", "x") == b' {"b" : 1,  "a": [ ], "a": [2],"c":"x"}'
    assert body.with_field("b", 2) == b'{"b":2,"a":[2]}'


@pytest.mark.parametrize(
    ("value", "is_there", "is_array"),
    [("null", False, False), ("0", True, False), ("[]", True, True), ('"null"', True, False)],
)
def test_fields_are_looked_at_in_place(value: str, is_there: bool, is_array: bool) -> None:
    body = RequestBody.parse(f'{{"a": {value}}}'.encode())
    assert body is not None
    assert (body.has("a"), body.is_array("a")) == (is_there, is_array)
    assert (body.has("b"), body.is_array("b")) == (False, False)
    assert bool(body.raw("a")) == is_there
