"""KV events: both forms on the wire, groups, gaps, restarts; over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until_async

from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import decode_batch, engine_session_id

A, B = engine_session_id("a"), engine_session_id("b")


def stored(*hashes: bytes | int, session: str | None = A, **others: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "parent_block_hash": None,
        "token_ids": [1],
        "block_size": 16,
        "lora_id": None,
    }
    fields |= {"medium": "GPU", "lora_name": None, "session_id": session, **others}
    return {"type": "BlockStored", "block_hashes": list(hashes), **fields}


def removed(*hashes: bytes | int, **others: Any) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU", **others}


CLEARED = {"type": "AllBlocksCleared"}


def batch(*events: Any, published_s: float = 1.5) -> bytes:
    return msgspec.msgpack.encode([published_s, events, 0])


def after(*events: Any) -> EventResidency:
    residency = EventResidency()
    residency.is_current = True
    for event in decode_batch(batch(*events)).events:
        residency.apply(event)
    return residency


def test_blocks_count_for_every_session_that_uses_them() -> None:
    residency = after(stored(b"1", b"2", b"3"), stored(b"1", session=B), removed(b"1"))
    assert residency.resident_tokens(A) == 32
    assert residency.resident_tokens(B) == 0


def test_a_block_that_is_reported_again_counts_once() -> None:
    residency = after(stored(b"1", b"2"), stored(b"1", b"2"), removed(b"2"), removed(b"2"))
    assert residency.resident_tokens(A) == 16


def test_older_engines_send_arrays() -> None:
    events = [["BlockStored", [7, 8], None, [1, 2], 16, None, "GPU"], ["BlockRemoved", [8], "GPU"]]
    first, second = decode_batch(batch(*events)).events
    assert (first.keys, first.block_tokens, first.session_id) == ([(0, 7), (0, 8)], 16, None)
    assert (second.kind, second.keys) == ("BlockRemoved", [(0, 8)])
    assert [each.kind for each in decode_batch(batch(["AllBlocksCleared"])).events] == [
        CLEARED["type"]
    ]


def test_the_scarcest_group_decides_and_windows_do_not() -> None:
    residency = after(
        stored(b"1", b"2", group_idx=0, kv_cache_spec_kind="full_attention"),
        stored(b"1", group_idx=1, kv_cache_spec_kind="full_attention"),
        stored(b"1", group_idx=2, kv_cache_spec_kind="sliding_window"),
        removed(b"1", group_idx=2),
    )
    assert residency.resident_tokens(A) == 16


def test_lower_tiers_and_unknown_events_are_left_out() -> None:
    residency = after(
        stored(b"1"), stored(b"2", medium="CPU"), removed(b"1", medium="CPU"), {"type": "New"}
    )
    assert residency.resident_tokens(A) == 16


def test_what_is_not_known_is_none() -> None:
    assert EventResidency().resident_tokens(A) is None
    for other in (None, "other"):  # older engines, and sessions that are not the gateway's
        assert after(stored(b"1", session=other)).resident_tokens(A) is None
    residency = after(stored(b"1"))
    assert (residency.resident_tokens(A), residency.resident_tokens(B)) == (16, None)
    residency.apply(decode_batch(batch(removed(b"1"))).events[0])
    assert residency.resident_tokens(A) == 0
    residency.clear()
    assert residency.resident_tokens(A) is None


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"a": 1}), batch(3)])
def test_what_is_no_batch_is_an_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a batch"):
        decode_batch(payload)


def test_blocks_used_again_are_found_by_their_children() -> None:
    """Engines report what a request stores, not what it finds in the cache."""
    head = stored(b"1", b"2", session=None)
    residency = after(head, stored(b"3", parent_block_hash=b"2"))
    assert residency.resident_tokens(A) == 48
    residency.apply(decode_batch(batch(removed(b"2", b"3"))).events[0])
    assert residency.resident_tokens(A) == 16


def test_partial_blocks_count_what_they_hold() -> None:
    residency = after(stored(b"1"), stored(b"2", parent_block_hash=b"1", block_size=4))
    assert residency.resident_tokens(A) == 20


def test_a_session_on_blocks_that_are_not_known_is_not_known() -> None:
    residency = after(stored(b"3", parent_block_hash=b"2"), stored(b"9", session=B))
    assert (residency.resident_tokens(A), residency.resident_tokens(B)) == (None, 16)
    residency.apply(decode_batch(batch(stored(b"4"))).events[0])
    assert residency.resident_tokens(A) is None


def prefixes(text: str) -> list[str]:
    return [text[: n + 1] for n in range(len(text))]


class Cache:
    """A prefix cache with a block a letter, and what it publishes."""

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}
        self.named: set[str] = set()
        self.events: list[dict[str, Any]] = []

    def store(self, session: str, text: str) -> None:
        new = [each for each in prefixes(text) if each not in self.users]
        if not new:
            return  # the engine says nothing of what it only finds
        parent = text[: len(new[0]) - 1].encode() or None
        keys = [each.encode() for each in new]
        self.events.append(stored(*keys, session=session, parent_block_hash=parent))
        self.named.add(session)
        for each in prefixes(text):
            self.users.setdefault(each, set()).add(session)

    def remove(self, text: str) -> None:
        gone = [each for each in self.users if each.startswith(text)]
        for each in sorted(gone, key=len, reverse=True):
            del self.users[each]
            self.events.append(removed(each.encode()))

    def resident_tokens(self, session: str) -> int | None:
        if session not in self.named:
            return None
        return 16 * sum(session in users for users in self.users.values())


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, None]), st.text("ab", min_size=1, max_size=5)),
        max_size=25,
    )
)
def test_counts_are_those_of_a_prefix_cache(actions: list[tuple[str | None, str]]) -> None:
    cache = Cache()
    for session, text in actions:
        if session is None:
            cache.remove(text)
        else:
            cache.store(session, text)
    residency = after(*cache.events)
    for session in (A, B):
        assert residency.resident_tokens(session) == cache.resident_tokens(session)


class Publisher:
    """Publishes as vLLM does; `lose` batches are repeated on request only."""

    def __init__(self, directory: Path, *, repeats: bool = True) -> None:
        self.endpoint = f"ipc://{directory}/events"
        self.replay_endpoint = f"ipc://{directory}/replay" if repeats else None
        self.batches: list[bytes] = []
        self._clock = itertools.count()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[EventResidency]:
        context = zmq.asyncio.Context.instance()
        residency = EventResidency()
        with context.socket(zmq.XPUB) as self.socket, context.socket(zmq.ROUTER) as router:
            self.socket.bind(self.endpoint)
            if self.replay_endpoint is not None:
                router.bind(self.replay_endpoint)
            reader = KvEventReader("e", self.endpoint, self.replay_endpoint, residency)
            tasks = [asyncio.create_task(reader.run()), asyncio.create_task(self._repeat(router))]
            await self.socket.recv()  # the subscription
            try:
                yield residency
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, *events: Any, is_lost: bool = False) -> None:
        payload = batch(*events, published_s=next(self._clock))
        self.batches.append(payload)
        if not is_lost:
            number = (len(self.batches) - 1).to_bytes(8, "big")
            await self.socket.send_multipart([b"", number, payload])

    async def _repeat(self, router: Any) -> None:
        while True:
            client, _, first = await router.recv_multipart()
            for number, payload in enumerate(self.batches):
                if number >= int.from_bytes(first, "big"):
                    frames = [client, b"", b"", number.to_bytes(8, "big"), payload]
                    await router.send_multipart(frames)
            await router.send_multipart([client, b"", b"", b"\xff" * 8, b""])


async def until(residency: EventResidency, tokens: int | None) -> None:
    await until_async(lambda: residency.resident_tokens(A) == tokens)


async def test_missed_events_are_asked_for(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    async with publisher.running() as residency:
        await publisher.send(stored(b"1"), is_lost=True)
        await publisher.send(stored(b"2"))
        await until(residency, 32)
        await publisher.send(removed(b"1"), is_lost=True)
        await publisher.send(stored(b"3"), is_lost=True)
        await publisher.send(stored(b"4"))
        await until(residency, 48)


async def test_a_late_reader_learns_what_came_before_it(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    for name in (b"1", b"2"):
        await publisher.send(stored(name), is_lost=True)
    async with publisher.running() as residency:
        await until(residency, 32)  # though nothing more is published
        number = (1).to_bytes(8, "big")
        await publisher.socket.send_multipart([b"", number, publisher.batches[1]])
        await publisher.send(removed(b"1"))
        await until(residency, 16)  # and a batch that comes again changes nothing


async def test_without_repetition_what_was_missed_is_forgotten(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, repeats=False)
    async with publisher.running() as residency:
        await publisher.send(stored(b"1", b"2"))
        await until(residency, 32)
        await publisher.send(removed(b"1"), is_lost=True)
        await publisher.send(stored(b"3"))
        await until(residency, 16)


async def test_a_restarted_engine_starts_anew(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    async with publisher.running() as residency:
        for name in (b"1", b"2", b"3"):
            await publisher.send(stored(name))
        await until(residency, 48)
        publisher.batches.clear()
        await publisher.send(stored(b"9"))
        await until(residency, 16)


async def test_an_unreadable_batch_does_not_end_the_reader(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    async with publisher.running() as residency:
        await publisher.send(stored(b"1"))
        await until(residency, 16)
        publisher.batches.append(b"\xc1")
        await publisher.socket.send_multipart([b"", (1).to_bytes(8, "big"), b"\xc1"])
        await until(residency, None)
        await publisher.send(stored(b"2"), stored(b"3"))
        await until(residency, 32)


def test_session_names_are_opaque_and_stable() -> None:
    assert engine_session_id("a") == A != B
    assert "tenant" not in engine_session_id("tenant\x00s")
