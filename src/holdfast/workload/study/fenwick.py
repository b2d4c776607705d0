"""Running sums over values that change: a Fenwick tree (Fenwick, 1994) that grows at its end."""

from __future__ import annotations

__all__ = ["Fenwick"]


class Fenwick:
    """Whole numbers by place, from 0; every operation is O(log n)."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        # The sum at place p, counted from 1, covers the lowest set bit of p places up to p.
        self._sums: list[int] = [0]

    def __len__(self) -> int:
        return len(self._sums) - 1

    def append(self, value: int) -> None:
        """Add a place with `value` at the end."""
        place = len(self._sums)
        covered = value
        below = place - 1
        while below > place - (place & -place):
            covered += self._sums[below]
            below -= below & -below
        self._sums.append(covered)

    def add(self, place: int, value: int) -> None:
        """Add `value` to what `place` (0 to length - 1) holds."""
        place += 1
        while place < len(self._sums):
            self._sums[place] += value
            place += place & -place

    def sum_before(self, place: int) -> int:
        """Sum of the places before `place` (0 to length). Pure."""
        total = 0
        while place > 0:
            total += self._sums[place]
            place -= place & -place
        return total
