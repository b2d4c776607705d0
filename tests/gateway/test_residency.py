"""Tests of what an engine is taken to hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.test_placement import path

from holdfast.gateway.engines import Engine
from holdfast.gateway.residency import Residency


def test_only_leading_pieces_count() -> None:
    held = Residency()
    held.add(path("abc"))
    assert held.num_resident(path("abx")) == 200
    assert held.num_resident(path("?abc")) == 0


def test_the_least_recent_path_loses_its_end_first() -> None:
    held = Residency(capacity_bytes=500)
    held.add(path("abc"))
    held.add(path("xyz"))
    assert held.num_resident(path("abc")) == 200
    assert held.num_resident(path("xyz")) == 300


def test_capacity_follows_from_tokens_and_their_length() -> None:
    engine = Engine("e", "http://e")
    engine.learn_capacity(1000)
    assert engine.residency.capacity_bytes == 4000
    for _ in range(200):
        engine.learn_tokens(prompt_bytes=300, prompt_tokens=100)
    assert engine.residency.capacity_bytes in range(3000, 3010)


@given(st.lists(st.text("ab", max_size=5), max_size=30), st.integers(0, 800))
def test_no_more_is_held_than_fits(texts: list[str], capacity_bytes: int) -> None:
    held = Residency(capacity_bytes)
    for text in texts:
        held.add(path(text))
        assert held.held_bytes == sum(held._pieces.values()) <= capacity_bytes
