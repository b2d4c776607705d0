"""Length of a path's resident part, where eviction starts at the path's end."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["resident_length"]


def resident_length(num_blocks: int, is_resident: Callable[[int], bool], guess: int = 0) -> int:
    """Return the length of a path's resident part (blocks). Pure; a bisection.

    Args:
        num_blocks: Blocks of the path (count, >= 0).
        is_resident: Whether the block at an index is resident; then all before it are too.
        guess: Expected result (count); two calls of `is_resident` confirm a right one.
    """
    low, high = 0, num_blocks
    guess = min(guess, high)
    # Probe the last block expected to be resident and the first not to be, then the middle.
    probe = guess - 1 if guess else 0
    while low < high:
        if is_resident(probe):
            low = probe + 1
        else:
            high = probe
        probe = guess if low == guess else (low + high) // 2
    return low
