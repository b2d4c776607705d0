"""What gateways before the same engines tell each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateway.engines import Engine
from holdfast.gateway.placement import Placements
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.shared_origins import Origin, OriginTable, hashed_choice
from holdfast.policies.routers.kv_routing import KvRouting


def path(*texts: str) -> PromptPath:
    return PromptPath.of(("".join(texts[: n + 1]).encode() for n in range(len(texts))), 1000)


def engines() -> list[Engine]:
    return [Engine(name, f"http://{name}") for name in ("a", "b")]


def test_a_session_goes_where_another_gateway_sent_it() -> None:
    known = engines()
    placements = Placements(known, KvRouting())
    placed = placements.place("s", path("x", "y"), 0.0, told=(known[1], 1000))
    assert (placed.engine, placed.reason, placed.missing_bytes) == (known[1], "origin", 1000)
    assert placed.origin is known[1]


@pytest.mark.parametrize("session_id", ["s", None])
def test_a_session_that_another_gateway_moved_has_moved(session_id: str | None) -> None:
    known = engines()
    placements = Placements(known, KvRouting())
    placements.place(session_id, path("x"), 0.0)
    placed = placements.place(session_id, path("x", "y"), 1.0, told=(known[1], 2000))
    assert (placed.engine, placed.reason, placed.missing_bytes) == (known[1], "origin", 0)
    assert placements.in_use_bytes(known[0]) == 0
    assert placements.in_use_bytes(known[1]) == 2000
    assert len(placements) == 1


def test_a_session_told_to_be_on_a_dead_engine_moves() -> None:
    known = engines()
    known[1].is_up = False
    placed = Placements(known, KvRouting()).place("s", path("x"), 0.0, told=(known[1], 1000))
    assert (placed.engine, placed.origin) == (known[0], known[1])


def test_the_longest_known_prompt_is_found() -> None:
    table = OriginTable(10.0)
    table.note(b"x", Origin("a", 1, 0.0))
    table.note(b"xy", Origin("b", 2, 1.0))
    assert table.find([b"xyz", b"xy", b"x"], 2.0) == Origin("b", 2, 1.0)
    assert table.find([b"other"], 2.0) is None
    assert table.find([b"x"], 10.5) is None  # its lease is over


def test_older_news_of_a_session_is_ignored() -> None:
    table = OriginTable(10.0)
    table.note("s", Origin("a", 1, 5.0))
    table.note("s", Origin("b", 2, 4.0))
    assert table.find(["s"], 6.0) == Origin("a", 1, 5.0)
    table.note("t", Origin("b", 3, 5.5))
    assert table.recent(1, 6.0) == [("t", Origin("b", 3, 0.5))]


names = st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=6, unique=True)


@given(st.text(max_size=20), names, st.randoms())
def test_a_name_that_leaves_moves_its_sessions_only(
    key: str, listed: list[str], source: object
) -> None:
    order = hashed_choice(key, listed)
    assert hashed_choice(key, listed[::-1]) == order
    for left in listed:
        rest = hashed_choice(key, [name for name in listed if name != left])
        assert rest == [name for name in order if name != left]


def test_sessions_spread_over_all_names() -> None:
    first = [hashed_choice(f"s{n}", ["a", "b", "c"])[0] for n in range(300)]
    assert all(70 < first.count(name) < 130 for name in "abc")
