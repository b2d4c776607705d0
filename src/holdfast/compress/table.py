"""The table of an evaluation, as text cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.compress.summary import MethodSummary

__all__ = ["HEADINGS", "markdown", "rows"]

HEADINGS: Final = (
    *("method", "share kept", "exact answers", "points lost", "NLL added (nats a token)"),
    *("worst NLL", "attention kept", "worst head"),
)


def rows(found: Sequence[MethodSummary]) -> list[tuple[str, ...]]:
    """A row for each summary, by share, the least loss in NLL first. Pure."""
    ordered = sorted(found, key=lambda row: (-row.share, row.nll_excess))
    return [
        (
            row.method,
            f"{100 * row.share:.0f} %",
            f"{row.exact_percent:.0f} %",
            f"{row.exact_loss_points:.0f} ({row.exact_loss_low:.0f}…{row.exact_loss_high:.0f})",
            f"{row.nll_excess:.2f} ({row.nll_excess_low:.2f}…{row.nll_excess_high:.2f})",
            f"{row.nll_worst:.1f}",
            f"{row.retained_mean:.2f}",
            f"{row.retained_min:.2f}",
        )
        for row in ordered
    ]


def markdown(found: Sequence[MethodSummary]) -> str:
    """The table in Markdown. Pure."""
    rule = ("---", *("---:" for _ in HEADINGS[1:]))
    lines = (HEADINGS, rule, *rows(found))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
