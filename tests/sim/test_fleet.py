"""Several simulated engines and a router, with hand-worked times."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.sim.one_at_a_time import BLOCK, FixedCost, OneAtATime, session, turn

from holdfast.core.results import Counters
from holdfast.errors import ConfigError, HoldfastError
from holdfast.sim.clock import VirtualClock
from holdfast.sim.engine import SimRequest
from holdfast.sim.fleet import Fleet, FleetPlan, Router
from holdfast.sim.load import SimulationOptions
from holdfast.sim.replays import Replays
from holdfast.sim.simulation import Simulation, SimulationRecords
from holdfast.traces.record import Session


class InTurn:
    """Gives requests to the engines in turn, those held only from a given time on."""

    def __init__(self, num_engines: int, opens_s: float = 0.0) -> None:
        self.living = list(range(num_engines))
        self.opens_s = opens_s
        self.num_sent = 0
        self.held: list[SimRequest] = []
        self.events: list[tuple[str, str, float]] = []

    @property
    def next_s(self) -> float:
        return self.opens_s if self.held else float("inf")

    def arrived(self, request: SimRequest, now_s: float) -> None:
        self.held.append(request)

    def take(self, now_s: float) -> Sequence[tuple[SimRequest, int]]:
        if now_s < self.opens_s:
            return []
        taken = []
        for request in self.held:
            taken.append((request, self.living[self.num_sent % len(self.living)]))
            self.num_sent += 1
        self.held = []
        return taken

    def started(self, request_id: str, now_s: float) -> None:
        self.events.append(("started", request_id, now_s))

    def ended(self, request_id: str, now_s: float) -> None:
        self.events.append(("ended", request_id, now_s))

    def lost(self, engine: int, now_s: float) -> None:
        self.living.remove(engine)


def run(
    sessions: Sequence[Session],
    router: Router,
    *,
    num_engines: int = 2,
    speeds: Sequence[float] = (),
    dies_at_s: float = float("inf"),
) -> tuple[SimulationRecords, list[OneAtATime]]:
    clock = VirtualClock()
    engines = [OneAtATime(clock) for _ in range(num_engines)]
    fleet = Fleet(engines, FixedCost(), clock, router, speeds=speeds, dies_at_s=dies_at_s)
    options = SimulationOptions(len(sessions))
    return Simulation(fleet, Replays(sessions, 1.0, BLOCK), options).run(), engines


def alone(number: int, output_tokens: int = 1) -> Session:
    """A session of one turn, whose prompt of one block no other shares."""
    return session(f"s{number}", turn(0, [number], 0, output_tokens))


def latencies(records: SimulationRecords) -> dict[str, float | None]:
    return {each.session_id: each.request_latency_s for each in records.turns}


def test_engines_work_at_the_same_time() -> None:
    records, engines = run([alone(1), alone(2)], InTurn(2))
    # A prompt takes 4 s; one engine would need 8 s for the second.
    assert latencies(records) == {"s1": pytest.approx(4.0), "s2": pytest.approx(4.0)}
    assert [len(engine.submitted) for engine in engines] == [1, 1]
    assert records.makespan_s == pytest.approx(4.0)


def test_a_slow_engine_takes_longer_for_the_same_step() -> None:
    records, _ = run([alone(1), alone(2)], InTurn(2), speeds=[0.5])
    assert latencies(records) == {"s1": pytest.approx(8.0), "s2": pytest.approx(4.0)}


def test_what_a_dead_engine_had_not_answered_is_sent_again() -> None:
    router = InTurn(2)
    records, engines = run([alone(1, 21), alone(2)], router, dies_at_s=5.0)
    # Its first token came at 4 s; the other engine begins anew at 5 s: 4 s and 20 decodes.
    assert latencies(records) == {"s2": pytest.approx(4.0), "s1": pytest.approx(5.0 + 4.0 + 2.0)}
    assert [len(engine.submitted) for engine in engines] == [1, 2]
    (late,) = (each for each in records.turns if each.session_id == "s1")
    assert late.ttft_s == pytest.approx(9.0)


def test_a_router_is_asked_again_when_it_says() -> None:
    router = InTurn(2, opens_s=3.0)
    records, _ = run([alone(1), alone(2)], router)
    assert latencies(records) == {"s1": pytest.approx(7.0), "s2": pytest.approx(7.0)}
    names, times_s = zip(*((event[:2], event[2]) for event in router.events), strict=True)
    assert names[0] == ("started", "0-0")
    assert ("ended", "1-0") in names
    assert times_s == pytest.approx([7.0] * 4)


def test_decodes_together_end_before_another_engine_can_disturb() -> None:
    records, engines = run([alone(1, 101), alone(2, 11)], InTurn(2))
    assert latencies(records) == {"s2": pytest.approx(5.0), "s1": pytest.approx(14.0)}
    beside, by_itself = engines[0].repeats[0], max(engines[0].repeats)
    assert beside <= 3  # steps of 0.1 s, and 0.25 s that a request may wait
    assert by_itself > 50


def test_a_router_that_starts_nothing_is_an_error() -> None:
    with pytest.raises(HoldfastError, match="the router holds 1 requests"):
        run([alone(1)], InTurn(1, opens_s=float("inf")), num_engines=1)


def test_counters_of_engines_add_up() -> None:
    parts = [
        Counters(evicted_blocks=1.0, prefetches={"hit": 2}, kv_tokens=10),
        Counters(evicted_blocks=2.0, prefetches={"hit": 1, "late": 1}, kv_tokens=10),
    ]
    total = Counters.sum_of(parts)
    assert (total.evicted_blocks, total.kv_tokens) == (3.0, 20)
    assert total.prefetches == {"hit": 3, "late": 1}
    assert total.preemptions is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_engines": 2, "speeds": (1.0, 1.0, 1.0)}, "3 values for 2 engines"),
        ({"num_engines": 2, "speeds": (0.0,)}, "numbers > 0"),
        ({"dies_at_s": 1.0}, "another engine"),
    ],
)
def test_impossible_fleets_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        FleetPlan(**arguments)  # type: ignore[arg-type]


def test_a_fleet_names_itself() -> None:
    assert str(FleetPlan()) == ""
    plan = FleetPlan(4, "sticky", (0.5, 1.0), 60.0)
    assert str(plan) == "4 engines at speeds 0.5, 1, one dies at 60 s, sticky"
