"""The prediction guard sets predictions aside, and tries them again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.runtime.prediction_guard import PredictionGuard

CAPACITY = 8


class Watched:
    """A guard over a cache of eight blocks, and turns one at a time."""

    def __init__(self, predictions: Any = "guarded") -> None:
        self.guard = PredictionGuard(predictions)
        self.guard.watch(CAPACITY)
        self.num_turns = 0

    def turn(self, content: str, found: int, answer: str = "") -> int:
        """Run a turn whose blocks are letters; returns what the sampled cache found."""
        self.num_turns += 1
        node: Node[Any] = Node(None, 0, [])
        session = Session(0, None, SessionState.WAITING, node, node)
        turn = Turn(str(self.num_turns), session, 0, self.num_turns)
        turn.resident_blocks = found
        self.guard.turn_arrived(turn, prefix_hashes(content))
        before = self.guard._num_shadow_found
        self.guard.turn_started(turn)
        found_by_shadow = self.guard._num_shadow_found - before
        self.guard.turn_ended(turn, prefix_hashes(content + answer))
        return found_by_shadow

    def window(self, found: int) -> None:
        """Ask for the same four blocks, four times the cache in all; so many were found."""
        for _ in range(4 * CAPACITY // 4):
            self.turn("abcd", found)


def prefix_hashes(content: str) -> list[bytes]:
    return [content[: i + 1].encode() for i in range(len(content))]


def test_the_sampled_cache_evicts_by_age_deepest_first() -> None:
    watched = Watched()
    watched.turn("abcd", 0)
    watched.turn("wxyz", 0)
    assert watched.turn("abcd", 0) == 4
    watched.turn("12", 0)  # takes the two deepest blocks of wxyz
    assert watched.turn("abcd", 0) == 4
    assert watched.turn("wxyz", 0) == 2


def test_an_answer_is_found_by_the_turn_that_repeats_it() -> None:
    watched = Watched()
    watched.turn("ab", 0, answer="cd")
    assert watched.turn("abcdef", 4) == 4


def test_a_window_worse_than_recency_sets_predictions_aside() -> None:
    watched = Watched()
    watched.window(found=4)
    assert watched.guard.trusts
    watched.window(found=3)
    assert not watched.guard.trusts
    watched.window(found=4)
    assert watched.guard.trusts


def test_the_penalty_doubles_by_trip_and_halves_by_good_window() -> None:
    watched = Watched()
    away = []
    for _ in range(4):
        watched.window(found=0)
        away.append(windows_until_trusted(watched))
    watched.window(found=4)
    watched.window(found=4)
    watched.window(found=0)
    assert away == [1, 2, 4, 8]
    assert windows_until_trusted(watched) == 4
    assert watched.guard.num_trips == 5


def windows_until_trusted(watched: Watched) -> int:
    for number in range(100):
        if watched.guard.trusts:
            return number
        watched.window(found=4)
    raise AssertionError


@pytest.mark.parametrize(("predictions", "trusts"), [("always", True), ("never", False)])
def test_without_a_guard_nothing_changes_whatever_is_found(predictions: Any, trusts: bool) -> None:
    watched = Watched(predictions)
    for _ in range(5):
        watched.window(found=0)
    assert watched.guard.trusts is trusts
    assert watched.guard.num_trips == 0


@given(st.integers(1, 400))
def test_predictions_that_always_mislead_are_used_in_few_windows(num_windows: int) -> None:
    watched = Watched()
    num_used = 0
    for _ in range(num_windows):
        num_used += watched.guard.trusts
        watched.window(found=0)
    assert num_used <= 2 + num_windows.bit_length() + num_windows // 64


@given(st.lists(st.tuples(st.sampled_from(["abc", "abd", "xyz", "pq"]), st.booleans())))
def test_the_sampled_cache_is_bounded_and_forgets_users(
    turns: list[tuple[str, bool]],
) -> None:
    watched = Watched()
    for content, is_long in turns:
        watched.turn(content, 0, answer="uvw" if is_long else "")
        assert len(watched.guard._idle) <= CAPACITY
        assert not watched.guard._num_users
