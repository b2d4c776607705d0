"""Running sums over values that change: a Fenwick tree (Fenwick, 1994) that grows at its end."""

from __future__ import annotations

__all__ = ["Fenwick"]


class Fenwick:
    """Whole numbers by index, from 0; every operation is O(log n)."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        # The sum at index p, counted from 1, covers the lowest set bit of p places up to p.
        self._sums: list[int] = [0]

    def __len__(self) -> int:
        return len(self._sums) - 1

    def append(self, value: int) -> None:
        """Add a index with `value` at the end."""
        index = len(self._sums)
        covered = value
        below = index - 1
        while below > index - (index & -index):
            covered += self._sums[below]
            below -= below & -below
        self._sums.append(covered)

    def add(self, index: int, value: int) -> None:
        """Add `value` to what `index` (0 to length - 1) holds."""
        index += 1
        while index < len(self._sums):
            self._sums[index] += value
            index += index & -index

    def sum_before(self, index: int) -> int:
        """Sum of the places before `index` (0 to length). Pure."""
        total = 0
        while index > 0:
            total += self._sums[index]
            index -= index & -index
        return total
