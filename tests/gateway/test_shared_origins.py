"""What gateways before the same engines tell each other."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.fake_engine import FakeEngine

from holdfast.gateway.app import Gateway
from holdfast.gateway.engines import Engine
from holdfast.gateway.placement import Placements
from holdfast.gateway.prompt_path import Piece
from holdfast.gateway.shared_origins import Origin, OriginTable, SessionKey, hashed_choice
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.routers.kv_routing import KvRouting


def path(*texts: str) -> list[Piece]:
    return [Piece("".join(texts[: n + 1]).encode(), 1000) for n in range(len(texts))]


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
    table = OriginTable()
    table.note(b"x", Origin("a", 1))
    table.note(b"xy", Origin("b", 2))
    assert table.find([b"xyz", b"xy", b"x"]) == Origin("b", 2)
    assert table.find([b"other"]) is None


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


class SharedTable:
    """One table for several gateways of this process."""

    def __init__(self) -> None:
        self.table = OriginTable()

    async def find(self, keys: Sequence[SessionKey]) -> Origin | None:
        return self.table.find(keys)

    def note(self, key: SessionKey, origin: Origin) -> None:
        self.table.note(key, origin)


async def test_gateways_in_turn_keep_a_session_on_its_engine() -> None:
    """Sessions with an id and without, each turn through the other gateway."""
    shared = SharedTable()
    runners = []
    async with FakeEngine().running() as one, FakeEngine().running() as two:
        for _ in range(2):
            known = [Engine("a", one.url), Engine("b", two.url)]
            runner = web.AppRunner(Gateway(known, ApiKeys({}), origins=shared).app())
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
        async with aiohttp.ClientSession() as client:
            for number in range(6):
                headers = {"x-session-id": f"s{number}"} if number % 2 else {}
                said = [{"role": "user", "content": f"{number} " * 500}]
                receipts = []
                for turn in range(4):
                    port = runners[turn % 2].addresses[0][1]
                    url = f"http://127.0.0.1:{port}/v1/chat/completions"
                    body = {"model": "m", "messages": said}
                    async with client.post(url, json=body, headers=headers) as answer:
                        receipts.append(answer.headers["X-Holdfast-Engine"])
                    said = [*said, {"role": "user", "content": f"{number}.{turn} " * 500}]
                assert len({receipt.split(";")[0] for receipt in receipts}) == 1, receipts
                assert [receipt.split("=")[1] for receipt in receipts[1:]] == ["origin"] * 3
        for runner in runners:
            await runner.cleanup()
    assert one.requests and two.requests
