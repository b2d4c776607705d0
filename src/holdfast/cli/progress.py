"""The progress bar of commands that take minutes, on the error stream."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["progress_bar"]


def progress_bar(errors: Console, unit: str, *, refresh_per_second: float = 10) -> Progress:
    """A bar that counts what is done and the time.

    Args:
        errors: Where it is shown.
        unit: Stands after the count.
        refresh_per_second: Lower where the display shares its cores with what it measures.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=errors,
        refresh_per_second=refresh_per_second,
    )
