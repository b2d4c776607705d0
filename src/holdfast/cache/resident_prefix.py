"""How much of a chain is there, when a chain is given up from its end."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["resident_length"]


def resident_length(num_blocks: int, is_resident: Callable[[int], bool], guess: int = 0) -> int:
    """Leading blocks of a chain that are there (count). Pure; a bisection.

    Args:
        num_blocks: Blocks of the chain (count, >= 0).
        is_resident: Whether the block at an index is there; then so are those before it.
        guess: Costs two questions when it is right.
    """
    low, high = 0, num_blocks
    guess = min(guess, high)
    # The last block that should be there and the first that should not, then the middle.
    probe = guess - 1 if guess else 0
    while low < high:
        if is_resident(probe):
            low = probe + 1
        else:
            high = probe
        probe = guess if low == guess else (low + high) // 2
    return low
