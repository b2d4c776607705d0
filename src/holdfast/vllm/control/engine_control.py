"""Answers control requests in an engine core.

Process: engine core. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.core.commands import Command, CommandOutcome
from holdfast.vllm.control.messages import (
    CommandReport,
    StateQuery,
    decode_request,
    encode,
)
from holdfast.vllm.control.state import EngineState
from holdfast.vllm.reports import EngineReports

__all__ = ["EngineControl"]

_INACTIVE: Final = CommandOutcome("rejected", "Holdfast is inactive on this engine; see its log")


class EngineControl:
    """Applies commands to the runtime, and reports its state.

    vLLM calls it between two steps, in the scheduler's thread, also while the engine is idle.

    Args:
        state: Answers queries.
        reports: Counts and logs commands.
        apply: Applies a command; returns None if that failed.
    """

    def __init__(
        self,
        state: EngineState,
        reports: EngineReports,
        apply: Callable[[Command], CommandOutcome | None],
    ) -> None:
        self._state = state
        self._reports = reports
        self._apply = apply

    def answer(self, data: bytes, *, is_active: bool) -> bytes:
        """Answer one request, as bytes both. Mutates the runtime.

        Args:
            data: See `decode_request`.
            is_active: Whether Holdfast decides; without it no command applies.

        Raises:
            ValueError: The request is none.
        """
        request = decode_request(data)
        if isinstance(request, StateQuery):
            return encode(self._state.report(request, is_active=is_active))
        outcome = (self._apply(request) if is_active else None) or _INACTIVE
        self._reports.commanded(request, outcome)
        return encode(CommandReport(self._state.engine, outcome.outcome, outcome.reason))
