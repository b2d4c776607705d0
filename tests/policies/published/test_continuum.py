"""Continuum: tau = argmax P(tool <= tau) * B - tau, with hand-worked numbers.

A block takes 1.6 s to compute, so B is 1.6 s a block plus the mean queueing delay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from tests.policies.host import HUMAN, TOOL, Cache, hashes_of, requests

from holdfast.core.offload_port import NoOffload
from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass
from holdfast.policies.published.continuum import Continuum
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.turn_end import TurnEnd

# Sixty pauses of a second, thirty of two, ten of fifty.
SAMPLE = [1.0] * 60 + [2.0] * 30 + [50.0] * 10


def calls(tool: str) -> TurnEnd:
    return TurnEnd("tool", (ToolCall(tool, ""),))


def after_pauses(gaps_s: Sequence[float], end: TurnEnd = TOOL, num_blocks: int = 100) -> Cache:
    """A cache that has seen one session pause that long, one pause after the other."""
    cache = Cache("continuum", num_blocks)
    see_pauses(cache, gaps_s, end, "p")
    return cache


def see_pauses(cache: Cache, gaps_s: Sequence[float], end: TurnEnd, name: str) -> None:
    cache.run(f"{name}", hashes_of(name), end, served_s=0.0)
    for number, gap_s in enumerate(gaps_s):
        cache.at(cache.now_s + gap_s)
        cache.run(f"{name}{number}", hashes_of(name), end, served_s=0.0)


def policy_of(cache: Cache) -> Continuum:
    assert isinstance(cache.eviction, Continuum)
    return cache.eviction


def time_to_live_s(cache: Cache, session: Session) -> float:
    return policy_of(cache)._pinned_until_s[session] - session.paused_at_s


@pytest.mark.parametrize(
    ("num_blocks", "expected_s"),
    [
        # B = 16: at 1 s 0.6 * 16 - 1 = 8.6; at 2 s 0.9 * 16 - 2 = 12.4; 50 s is more than B.
        (10, 2.0),
        # B = 3.2: at 1 s 0.6 * 3.2 - 1 = 0.92; at 2 s 0.9 * 3.2 - 2 = 0.88.
        (2, 1.0),
        # B = 1.6: at 1 s 0.6 * 1.6 - 1 = -0.04: worse than no pin.
        (1, 0.0),
        # B = 480: at 2 s 0.9 * 480 - 2 = 430; at 50 s 480 - 50 = 430: the shorter of equals.
        (300, 2.0),
        # B = 481.6: at 2 s 431.44; at 50 s 431.6.
        (301, 50.0),
    ],
)
def test_time_to_live_maximises_expected_benefit(num_blocks: int, expected_s: float) -> None:
    cache = after_pauses(SAMPLE, num_blocks=400)
    prompt = [f"x{n}".encode() for n in range(num_blocks)]
    session = cache.session("x", prompt)
    assert time_to_live_s(cache, session) == expected_s


@pytest.mark.parametrize(
    ("num_blocks", "expected_s"),
    [
        (10, 2.772589),  # ln 16
        (2, 1.163151),  # ln 3.2
        (1, 0.470004),  # ln 1.6
    ],
)
def test_cold_start_takes_the_logarithm_of_the_benefit(num_blocks: int, expected_s: float) -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", hashes_of("x" * num_blocks))
    assert time_to_live_s(cache, session) == pytest.approx(expected_s, abs=1e-6)


def test_cold_start_pins_nothing_for_a_benefit_below_a_second() -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", [])  # B = 0
    assert time_to_live_s(cache, session) == 0.0


def test_ninety_nine_samples_are_a_cold_start() -> None:
    cache = after_pauses([1.0] * 99)
    session = cache.session("x", hashes_of("x" * 10))
    assert time_to_live_s(cache, session) == pytest.approx(math.log(16))
    cache = after_pauses([1.0] * 100)
    session = cache.session("x", hashes_of("x" * 10))
    assert time_to_live_s(cache, session) == 1.0


def test_tool_goes_by_its_own_pauses_once_it_has_enough() -> None:
    cache = after_pauses([1.0] * 100, calls("quick"))
    see_pauses(cache, [3.0] * 100, calls("slow"), "s")
    see_pauses(cache, [3.0] * 99, calls("rare"), "r")
    quick, slow = (
        cache.session(tool, hashes_of(tool[0] * 2 + "x" * 8), calls(tool))
        for tool in ("quick", "slow")
    )
    assert (time_to_live_s(cache, quick), time_to_live_s(cache, slow)) == (1.0, 3.0)
    # One sample short: among all 299 pauses 100 took 1 s, the others 3 s.
    # B = 3.2: 100 / 299 * 3.2 - 1 = 0.07; at 3 s 3.2 - 3 = 0.2.
    rare = cache.session("rare", hashes_of("zz"), calls("rare"))
    assert time_to_live_s(cache, rare) == 3.0


def wait(cache: Cache, name: str, turn_number: int, delay_s: float) -> None:
    """A turn that waits, long after any pin."""
    cache.at(cache.now_s + 100.0)
    turn = cache.arrive(f"{name}{turn_number}", hashes_of(name))
    cache.at(cache.now_s + delay_s)
    cache.start(turn)
    cache.end(turn)


def test_delay_of_later_turns_without_a_pin_adds_benefit() -> None:
    cache = Cache("continuum", 100)
    for name, delay_s in (("a", 2.0), ("b", 4.0)):
        wait(cache, name, 1, 50.0)  # the first turn of a program does not count
        wait(cache, name, 2, delay_s)
    # B = (2 + 4) / 2 + 3.2 = 6.2
    session = cache.session("x", hashes_of("xx"))
    assert time_to_live_s(cache, session) == pytest.approx(math.log(6.2))


def test_delays_are_averaged_over_a_window() -> None:
    cache = Cache("continuum:delay_window=2", 100)
    for number, delay_s in enumerate((9.0, 9.0, 1.0, 2.0), 1):
        wait(cache, "a", number, delay_s)
    # B is 3.2 and the mean of the last two.
    session = cache.session("x", hashes_of("xx"))
    assert time_to_live_s(cache, session) == pytest.approx(math.log(4.7))


@pytest.mark.parametrize(
    ("lengths", "eta"),
    [
        ([4], 1.0),  # (1, 3), (2, 2), (3, 1), (4, 0): what is begun tells what is to come
        ([1, 1], 0.25),  # (1, 0) twice tells nothing: the cold value, here set
        # (1, 1), (2, 0), (1, 3), (2, 2), (3, 1), (4, 0): sums 13 and 7, squares 35 and 15,
        # products 1 + 0 + 3 + 4 + 3 = 11: (6 * 11 - 91) / sqrt((210 - 169) * (90 - 49)) = -25 / 41
        ([2, 4], 25 / 41),
    ],
)
def test_eta_is_minus_the_correlation_of_turns_begun_and_left(
    lengths: list[int], eta: float
) -> None:
    cache = Cache("continuum:cold_eta=0.25", 100)
    for program, num_turns in enumerate(lengths):
        for number in range(num_turns):
            session = cache.session(f"{program}.{number}", hashes_of(chr(65 + program)))
        cache.runtime.session_closed(session)
    assert policy_of(cache)._eta == pytest.approx(eta)


def test_eta_scales_the_queueing_delay_alone() -> None:
    cache = Cache("continuum:cold_eta=0.5", 100)
    wait(cache, "a", 1, 0.0)
    wait(cache, "a", 2, 4.0)
    session = cache.session("x", hashes_of("xx"))
    assert policy_of(cache)._benefit_s(session) == pytest.approx(0.5 * 4.0 + 3.2)


class FullTier(NoOffload):
    """A tier that holds everything; a block is loaded in a quarter of a second."""

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        del guess
        return len(hashes) - first

    def load_s(self, num_blocks: float) -> float:
        return num_blocks * 0.25


def test_stored_context_saves_the_time_to_load_it() -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", hashes_of("x" * 8))
    assert policy_of(cache)._benefit_s(session) == pytest.approx(12.8)
    cache.runtime.tier = FullTier()
    assert policy_of(cache)._benefit_s(session) == pytest.approx(2.0)


def test_public_fork_pins_for_two_seconds() -> None:
    cache = Cache("continuum:fixed_ttl_s=2", 100)
    assert time_to_live_s(cache, cache.session("x", hashes_of("x"))) == 2.0


def test_samples_needed_are_a_setting() -> None:
    cache = Cache("continuum:min_samples=2", 100)
    see_pauses(cache, [1.0, 1.0], TOOL, "p")
    assert time_to_live_s(cache, cache.session("x", hashes_of("x" * 10))) == 1.0


def test_delay_of_a_turn_with_a_live_pin_does_not_count() -> None:
    cache = Cache("continuum", 100)
    cache.session("x", hashes_of("xx"))  # pinned for ln 3.2 = 1.16 s; its own delay is 0 s
    cache.at(1.0)
    turn = cache.arrive("x2", hashes_of("xxx"))
    cache.at(9.0)
    cache.start(turn)
    cache.end(turn)
    # The eight seconds that it waited are left out: B = 0 + 4.8.
    assert time_to_live_s(cache, turn.session) == pytest.approx(math.log(4.8))


def test_pin_expires_after_its_time_to_live() -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", hashes_of("x" * 10))  # ln 16 = 2.77 s
    cache.at(2.7)
    assert cache.eviction.session_priority(session) == 1.0
    assert policy_of(cache).retains(session)
    cache.at(2.8)
    assert cache.eviction.session_priority(session) == 0.0
    assert not policy_of(cache).retains(session)


def test_session_of_a_human_gets_no_pin() -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", hashes_of("x" * 10), HUMAN)
    assert cache.eviction.session_priority(session) == 0.0
    assert not session.has_reservation


def test_pin_is_dropped_when_a_human_turns_out_to_be_asked() -> None:
    cache = Cache("continuum", 100)
    session = cache.session("x", hashes_of("x" * 10), None)
    assert session.has_reservation
    cache.runtime.turn_end_known(session, 1, HUMAN)
    assert cache.eviction.session_priority(session) == 0.0
    assert not session.has_reservation


def test_pinned_blocks_evicted_last() -> None:
    cache = Cache("continuum", 9)
    cache.run("pinned", hashes_of("ppp"), TOOL, served_s=0.0)  # ln 4.8 = 1.57 s
    cache.run("human", hashes_of("hhh"), HUMAN, served_s=0.0)
    cache.run("late", hashes_of("lll"), HUMAN, served_s=0.0)
    cache.at(1.0)
    cache.rescore()
    assert cache.priority("ppp") == (PriorityClass.PINNED, 0.0)
    assert cache.evict(9) == ["hhh", "hh", "h", "lll", "ll", "l", "ppp", "pp", "p"]


def test_expired_pin_leaves_the_order_of_recency() -> None:
    cache = Cache("continuum", 6)
    cache.run("pinned", hashes_of("ppp"), TOOL, served_s=0.0)
    cache.run("human", hashes_of("hhh"), HUMAN, served_s=0.0)
    cache.at(2.0)
    cache.rescore()
    assert cache.evict(6) == ["ppp", "pp", "p", "hhh", "hh", "h"]


def test_programs_go_by_first_arrival() -> None:
    cache = Cache("continuum", 100)
    for name in "ab":
        cache.run(name, hashes_of(name))
    new = cache.arrive("c", hashes_of("c"))
    second, first = cache.arrive("b2", hashes_of("bb")), cache.arrive("a2", hashes_of("aa"))
    assert requests(cache.admit([new, second, first]).admitted) == ["a2", "b2", "c"]


def test_turns_wait_while_pins_leave_too_few_blocks() -> None:
    cache = Cache("continuum", 8)
    pinned = cache.session("p", hashes_of("ppppp"))  # ln 8 = 2.08 s; three blocks are left
    waiting = [cache.arrive("x", hashes_of("xxxx"))]
    assert not cache.admit(waiting).admitted
    cache.at(2.5)
    admission = cache.admit(waiting)
    assert requests(admission.admitted) == ["x"]
    assert list(admission.released) == [pinned]


def test_idle_engine_starts_a_turn_over_a_pin() -> None:
    cache = Cache("continuum", 8)
    cache.session("p", hashes_of("ppppp"))
    waiting = [cache.arrive("x", hashes_of("xxxx"))]
    assert requests(cache.admit(waiting, num_running=0).admitted) == ["x"]
