"""What the gateway remembers of sessions that never return: nothing after their lease."""

from __future__ import annotations

import itertools
import json

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import KvEvent, engine_session_id
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.placement import Placements
from holdfast.gateway.prompt_changes import PromptChanges, SentPrompt
from holdfast.gateway.prompt_path import PromptPath, place_of
from holdfast.policies.routers.kv_routing import KvRouting

LEASE_S = 60.0
TURN_S = 0.5
NUM_TURNS = 3  # of each session, which then is silent for ever


class Load:
    """A steady load of short sessions on a clock of the test's, and what is kept of it."""

    def __init__(self) -> None:
        self.engines = [Engine(name, f"http://{name}", bytes_per_token=1.0) for name in "ab"]
        for engine in self.engines:
            engine.learn_capacity(200_000)
        self.dispatcher = Dispatcher(self.engines, LEASE_S)
        self.changes = PromptChanges(GatewayMetrics().prompts, LEASE_S)
        self.now_s = 0.0
        self.numbers = itertools.count()

    def session(self, name: str | None) -> None:
        """A session from its first turn to its last."""
        text = f"{next(self.numbers):06} " * 300
        messages: list[dict[str, str]] = []
        for _ in range(NUM_TURNS):
            messages.append({"role": "user", "content": f"{len(messages)} {text}"})
            body = RequestBody.parse(json.dumps({"model": "m", "messages": messages}).encode())
            assert body is not None
            self.changes.add(SentPrompt(body, Identity(name), 4.0, self.now_s))
            while self.changes.step(self.now_s):
                pass
            path, _, _ = place_of(body, "")
            request_id = str(next(self.numbers))
            self.dispatcher.place(request_id, name, path, self.now_s)
            assert self.dispatcher.take(self.now_s) == [request_id]
            self.now_s += TURN_S
            self.dispatcher.started(request_id, self.now_s)
            self.dispatcher.ended(request_id, self.now_s, 10)

    def run(self, seconds: float, *, named: bool) -> None:
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            self.session(f"s{next(self.numbers)}" if named else None)

    def kept(self) -> dict[str, int]:
        """Entries by what remembers them."""
        runtimes = [each._runtime for each in self.dispatcher._admissions.values()]
        assert len(runtimes) == len(self.engines)
        return {
            "placements": len(self.dispatcher.placements),
            "leaves": len(self.dispatcher.placements._leaves),
            "sessions": sum(len(runtime.sessions) for runtime in runtimes),
            "blocks": sum(len(runtime.tree) for runtime in runtimes),
            "evictions": sum(len(runtime.misses._evictions) for runtime in runtimes),
            "prompts": len(self.changes._history),
            "texts": len(self.changes._history._outliner),
        }


def test_a_steady_load_is_remembered_for_its_lease() -> None:
    for named in (True, False):
        load = Load()
        load.run(4 * LEASE_S, named=named)
        num_sessions = LEASE_S / (NUM_TURNS * TURN_S) + 2
        before = load.kept()
        assert before["placements"] <= num_sessions
        assert before["sessions"] <= num_sessions
        assert before["prompts"] <= num_sessions
        assert before["evictions"] == 0
        load.run(8 * LEASE_S, named=named)
        after = load.kept()
        # Texts are forgotten after one lease to two.
        grown = {name for name in after if after[name] > 1.1 * before[name] and name != "texts"}
        assert not grown, (before, after)
        assert after["texts"] <= 2 * NUM_TURNS * num_sessions


def test_after_a_pause_of_all_sessions_one_is_left() -> None:
    load = Load()
    load.run(LEASE_S, named=True)
    load.now_s += LEASE_S
    load.session("last")
    kept = load.kept()
    assert (kept["placements"], kept["prompts"]) == (1, 1)
    load.now_s += LEASE_S
    for engine in load.engines:  # each forgets when it is asked to admit a turn
        load.dispatcher.place(
            engine.name, engine.name, PromptPath.of([b"x"], 1), load.now_s, where=engine
        )
    load.dispatcher.take(load.now_s)
    load.session("other")
    assert load.kept()["sessions"] == 3


def test_events_forget_a_session_with_its_last_block() -> None:
    engine = Engine("a", "http://a", events=EventResidency())
    events = engine.events
    assert events is not None
    events.is_current = True
    placements = Placements([engine, Engine("b", "http://b")], KvRouting(), LEASE_S)
    names = ["kept", "evicted", "cleared"]
    for number, name in enumerate(names):
        session = engine_session_id(name)
        events.apply(KvEvent("BlockStored", [(0, number)], None, 16, session))
        placements.place(name, PromptPath.of([name.encode()], 64), 0.0)
    events.apply(KvEvent("BlockRemoved", [(0, 1)], None, 0, None))
    placements.place("new", PromptPath.of([b"new"], 64), LEASE_S + 1.0)
    known = [events.resident_tokens(engine_session_id(name)) for name in names]
    assert known == [16, None, 16]
    events.apply(KvEvent("BlockRemoved", [(0, 0)], None, 0, None))
    events.apply(KvEvent("AllBlocksCleared"))
    assert [events.resident_tokens(engine_session_id(name)) for name in names] == [None] * 3
    assert not events._is_known and not events._gone
