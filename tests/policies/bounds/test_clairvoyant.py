"""The bound goes by what really happens, in places as in victims."""

from __future__ import annotations

from tests.policies.host import Cache, FixedOracle, chain


def _held_after_a_claim(gaps_s: dict[str, float]) -> set[int]:
    cache = Cache("clairvoyant", 16, FixedOracle(gaps_s))
    cache.run("first", chain("abcd"))
    cache.run("second", chain("efgh"))
    runtime = cache.runtime
    newcomer = runtime.turn_arrived("third", chain("12345678"), None)
    newcomer.missing_blocks = newcomer.demand_blocks = 8
    runtime.admit([newcomer], blocks=4, slots=8, num_running=1)
    return {session.number for session in runtime.sessions if session.has_reservation}


def test_whoever_is_really_away_for_long_gives_up_the_place() -> None:
    # Recomputing 4 blocks of 16 tokens takes 6.4 s; with one running, one waiting: worth 12.8 s.
    assert _held_after_a_claim({"first": 500.0, "second": 1.0}) == {1}
    assert _held_after_a_claim({"first": 1.0, "second": 500.0}) == {0}


def test_whoever_is_really_back_soon_keeps_the_place() -> None:
    assert _held_after_a_claim({"first": 10.0, "second": 10.0}) == {0, 1}


def test_whoever_never_returns_gives_up_the_place() -> None:
    assert _held_after_a_claim({"first": 1.0}) == {0}
