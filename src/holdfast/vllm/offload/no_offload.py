"""The scheduler's interface to the tiers where it has none.

Process: scheduler. Imports nothing of vLLM, whose older versions have no offloading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from holdfast.core.session import Session

__all__ = ["NoOffloadController"]


class NoOffloadController:
    """Stands in for `OffloadController`: stores, loads and prefetches nothing.

    Attributes:
        has_tiers: False.
        is_prefetching: False.
        wants_step: False.
        prefetches: Empty.
    """

    has_tiers: Final = False
    is_prefetching: Final = False
    wants_step: Final = False

    def __init__(self) -> None:
        self.prefetches: Counter[str] = Counter()

    def install_gate(self, *args: Any) -> None:
        """Install nothing."""

    def holding_requests(self) -> list[Any]:
        """No request waits for a copy."""
        return []

    def loading_requests(self) -> list[str]:
        """No request waits for a load."""
        return []

    @property
    def is_short(self) -> bool:
        """No request waits after a load."""
        return False

    def before_step(
        self,
        num_steps: int,
        queued: Callable[[], Iterable[Session]],
        free_blocks: Callable[[], int],
    ) -> None:
        """Prefetch nothing."""

    def search_soon(self) -> None:
        """Prefetch nothing."""

    def arrived(self, request: Any) -> None:
        """Ignore it."""

    def started(self, request: Any) -> None:
        """Ignore it."""

    def step_planned(self, output: Any) -> None:
        """Ignore it."""

    def step_ended(self, model_output: Any) -> float:
        """No step copies (s)."""
        del model_output
        return 0.0

    def halt_prefetches(self) -> bool:
        """No prefetch holds a block."""
        return True

    def content_dropped(self) -> None:
        """Ignore it."""

    def fall_back(self) -> None:
        """Change nothing."""
