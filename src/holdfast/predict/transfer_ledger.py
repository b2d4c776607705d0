"""Net benefit of copies to and from a lower tier: time saved less time spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TransferAccount", "TransferLedger"]

_TURNS_A_WINDOW: Final = 128
_FIRST_DISABLED_TURNS: Final = 256
_MAX_DISABLED_TURNS: Final = 8192
# A smaller share of the time cannot be told from the noise of step times.
_NOTICED_SHARE: Final = 0.02


@dataclass(slots=True)
class TransferAccount:
    """Benefit and cost of copies over some turns.

    Attributes:
        num_turns: Turns that arrived (count).
        num_loads: Loads (count).
        num_declined: Turns whose loads or stores were left out because computing was expected to be
            faster (count).
        saved_s: Time that turns would have waited for loaded blocks to be computed (s).
        loading_s: Time that turns waited for loads (s).
        stalled_s: Time that turns waited for stores (s).
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
    def net_benefit_s(self) -> float:
        """Time saved less time spent (s). Pure."""
        return self.saved_s - self.loading_s - max(self.stalled_s, 0.0)

    @property
    def has_no_benefit(self) -> bool:
        """Whether copies were made, noticed or mostly declined, without benefit. Pure."""
        was_noticed = self.stalled_s > _NOTICED_SHARE * self.elapsed_s
        was_declined = 2 * self.num_declined > self.num_turns
        return self.net_benefit_s <= 0.0 and (was_noticed or was_declined or self.num_loads > 0)


class TransferLedger:
    """Disables copies after a window of turns without a benefit; tries again later.

    Copies are disabled for 256 turns; each further window without a benefit doubles that, up to
    8,192. The window after that is a trial with copies enabled. A window without loads, with few
    declined turns and no noticed stall decides nothing, so that a tier that is not needed yet goes
    on being filled.

    Attributes:
        is_enabled: Whether copies are to be made.
        disabled_turns: Length of the present or next time without copies (turns).
    """

    def __init__(self) -> None:
        self.is_enabled = True
        self.disabled_turns = _FIRST_DISABLED_TURNS
        self._open = TransferAccount()
        self._began_s: float | None = None

    def observe_loads(self, num_loads: int, saved_s: float, loading_s: float) -> None:
        """Add loads that ended: the time they saved (s) and took (s). Mutates."""
        self._open.num_loads += num_loads
        self._open.saved_s += saved_s
        self._open.loading_s += loading_s

    def observe_declined(self) -> None:
        """Add a turn whose copies were left out for lack of a benefit. Mutates."""
        self._open.num_declined += 1

    def observe_stall(self, seconds: float) -> None:
        """Add time that turns waited for stores (s; may be negative). Mutates."""
        self._open.stalled_s += seconds

    def turn_arrived(self, now_s: float) -> TransferAccount | None:
        """Count a turn, and decide at the end of a window. Mutates.

        Args:
            now_s: Time now (s).

        Returns:
            The account of a window that disables copies, or that confirms them after a trial; else
            None, also at the start of a trial.
        """
        account = self._open
        if self._began_s is None:
            self._began_s = now_s
        account.num_turns += 1
        if not self.is_enabled:
            if account.num_turns >= self.disabled_turns:
                self.is_enabled = True
                self.disabled_turns = min(2 * self.disabled_turns, _MAX_DISABLED_TURNS)
                self._begin(now_s)
            return None
        if account.num_turns < _TURNS_A_WINDOW:
            return None
        account.elapsed_s = now_s - self._began_s
        self._begin(now_s)
        if account.has_no_benefit:
            self.is_enabled = False
            return account
        if account.net_benefit_s > 0.0 and self.disabled_turns > _FIRST_DISABLED_TURNS:
            self.disabled_turns = _FIRST_DISABLED_TURNS
            return account
        return None

    def _begin(self, now_s: float) -> None:
        self._open = TransferAccount()
        self._began_s = now_s
