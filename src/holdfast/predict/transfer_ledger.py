"""Whether copies to a lower tier and back have paid, from what they saved and what they took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TransferAccount", "TransferLedger"]

_TURNS_A_WINDOW: Final = 128
_FIRST_REST_TURNS: Final = 256
_LONGEST_REST_TURNS: Final = 8192
# Below this share of the time, waiting of steps is not told from the noise of their times.
_NOTICED_SHARE: Final = 0.02


@dataclass(slots=True)
class TransferAccount:
    """What copies brought and took over some turns.

    Attributes:
        num_turns: Turns that arrived (count).
        num_loads: Copies back (count).
        num_declined: Turns that could have loaded blocks, or stored them, and did not because that
            was expected to take longer than computing them (count).
        saved_s: Time that turns would have waited while what was copied back was computed (s).
        loading_s: Time that they waited for it to be copied (s).
        stalled_s: Time that they waited for copies away (s).
        elapsed_s: Time that the turns spanned (s).
    """

    num_turns: int = 0
    num_loads: int = 0
    num_declined: int = 0
    saved_s: float = 0.0
    loading_s: float = 0.0
    stalled_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def net_s(self) -> float:
        """Time saved, less what it took (s). Pure."""
        return self.saved_s - self.loading_s - max(self.stalled_s, 0.0)

    @property
    def says_no(self) -> bool:
        """Whether copies were made or felt, or hardly ever worth it, and brought nothing. Pure."""
        was_felt = self.stalled_s > _NOTICED_SHARE * self.elapsed_s
        is_hopeless = 2 * self.num_declined > self.num_turns
        return self.net_s <= 0.0 and (was_felt or is_hopeless or self.num_loads > 0)


class TransferLedger:
    """Says no after a window of turns in which copies did not pay, and tries again later.

    After a no, copies rest for 256 turns; each further no in a row doubles that, up to 8,192. The
    window after a rest is a trial: copies are made, and what they bring decides. A window in which
    nothing was copied back, little was declined and no step waited says nothing, so that a tier
    that is not needed yet goes on being filled.

    Attributes:
        is_paying: Whether copies are to be made.
        rest_turns: Turns that the rest has, or the next one would have (count).
    """

    def __init__(self) -> None:
        self.is_paying = True
        self.rest_turns = _FIRST_REST_TURNS
        self._open = TransferAccount()
        self._began_s: float | None = None

    def loaded(self, num_loads: int, saved_s: float, loading_s: float) -> None:
        """Copies back have ended that saved waiting (s) and took time (s). Mutates."""
        self._open.num_loads += num_loads
        self._open.saved_s += saved_s
        self._open.loading_s += loading_s

    def declined(self) -> None:
        """A turn's copies were expected not to pay. Mutates."""
        self._open.num_declined += 1

    def stalled(self, seconds: float) -> None:
        """Turns waited for copies away (s; negative where less than expected). Mutates."""
        self._open.stalled_s += seconds

    def turn_arrived(self, now_s: float) -> TransferAccount | None:
        """A turn has arrived. Mutates.

        Args:
            now_s: Time now (s).

        Returns:
            The account of a window that has just ended with another verdict than the one before;
            None where nothing changed, and when a rest ends.
        """
        account = self._open
        if self._began_s is None:
            self._began_s = now_s
        account.num_turns += 1
        if not self.is_paying:
            if account.num_turns >= self.rest_turns:
                self.is_paying = True
                self.rest_turns = min(2 * self.rest_turns, _LONGEST_REST_TURNS)
                self._begin(now_s)
            return None
        if account.num_turns < _TURNS_A_WINDOW:
            return None
        account.elapsed_s = now_s - self._began_s
        self._begin(now_s)
        if account.says_no:
            self.is_paying = False
            return account
        if account.net_s > 0.0 and self.rest_turns > _FIRST_REST_TURNS:
            self.rest_turns = _FIRST_REST_TURNS
            return account
        return None

    def _begin(self, now_s: float) -> None:
        self._open = TransferAccount()
        self._began_s = now_s
