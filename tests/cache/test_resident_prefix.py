from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.resident_prefix import resident_length


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 250))
def test_it_finds_how_much_is_there_whatever_the_guess(total: int, held: int, guess: int) -> None:
    held = min(total, held)
    assert resident_length(total, lambda block: block < held, guess) == held


def test_a_right_guess_costs_two_questions() -> None:
    asked: list[int] = []

    def has_reservation(block: int) -> bool:
        asked.append(block)
        return block < 700

    assert resident_length(1000, has_reservation, 700) == 700
    assert asked == [699, 700]
