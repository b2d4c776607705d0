"""Prefix sums over changing values: a Fenwick tree (Fenwick, 1994) with append."""

from __future__ import annotations

__all__ = ["Fenwick"]


class Fenwick:
    """Integers by index, from 0; every operation is O(log n)."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        # The sum at 1-based index p covers the last (p & -p) values up to p.
        self._sums: list[int] = [0]

    def __len__(self) -> int:
        return len(self._sums) - 1

    def append(self, value: int) -> None:
        """Append `value`."""
        index = len(self._sums)
        covered = value
        below = index - 1
        while below > index - (index & -index):
            covered += self._sums[below]
            below -= below & -below
        self._sums.append(covered)

    def add(self, index: int, value: int) -> None:
        """Add `value` to the value at `index` (0 to length - 1)."""
        index += 1
        while index < len(self._sums):
            self._sums[index] += value
            index += index & -index

    def sum_before(self, index: int) -> int:
        """Sum of the values before `index` (0 to length). Pure."""
        total = 0
        while index > 0:
            total += self._sums[index]
            index -= index & -index
        return total
