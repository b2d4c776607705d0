"""The bisection of a path's resident part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.resident_prefix import resident_length


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 250))
def test_resident_length_is_found_whatever_the_guess(
    num_blocks: int, num_resident: int, guess: int
) -> None:
    num_resident = min(num_blocks, num_resident)
    assert resident_length(num_blocks, lambda block: block < num_resident, guess) == num_resident


def test_right_guess_costs_two_probes() -> None:
    probed: list[int] = []

    def is_resident(block: int) -> bool:
        probed.append(block)
        return block < 700

    assert resident_length(1000, is_resident, 700) == 700
    assert probed == [699, 700]
