"""The runs of a replay side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from holdfast.core.results import Distribution, RunResult, ratio

__all__ = ["results_table"]

_Column = tuple[str, Callable[[RunResult], float | None], str]


def _part(
    distribution: Callable[[RunResult], Distribution | None], part: str
) -> Callable[[RunResult], float | None]:
    def value(result: RunResult) -> float | None:
        found = distribution(result)
        return None if found is None else float(getattr(found, part))

    return value


_ROWS: tuple[_Column, ...] = (
    ("token hit ratio", lambda run: run.token_hit_ratio, ".3f"),
    ("evicted blocks", lambda run: run.evicted_blocks, ",.0f"),
    ("LLM time a session, mean (s)", _part(lambda run: run.session_llm_time_s, "mean"), ",.2f"),
    ("TTFT p50 (s)", _part(lambda run: run.ttft_s, "p50"), ",.3f"),
    ("TTFT p99 (s)", _part(lambda run: run.ttft_s, "p99"), ",.3f"),
    ("request latency p50 (s)", _part(lambda run: run.request_latency_s, "p50"), ",.3f"),
    ("request latency p99 (s)", _part(lambda run: run.request_latency_s, "p99"), ",.3f"),
    ("makespan (s)", lambda run: run.makespan_s, ",.1f"),
    ("sessions live at once, mean", lambda run: run.mean_live_sessions, ",.1f"),
    ("goodput (tokens/s)", lambda run: run.goodput_tokens_per_s, ",.0f"),
    ("goodput, all live (tokens/s)", lambda run: run.all_live_goodput_tokens_per_s, ",.0f"),
    ("preemptions", lambda run: run.preemptions, ",.0f"),
    ("turns answered", lambda run: run.num_turns, ",.0f"),
    ("errors", lambda run: run.num_errors, ",.0f"),
)


def results_table(runs: list[RunResult]) -> Table:
    """Lay runs out side by side; with two, the last column is second / first; pure."""
    table = Table()
    table.add_column("")
    for run in runs:
        table.add_column(run.policy + (" (partial)" if run.partial else ""), justify="right")
    has_ratio = len(runs) == 2
    if has_ratio:
        table.add_column("second / first", justify="right")
    for name, value, form in _ROWS:
        values = [value(run) for run in runs]
        cells = [_cell(number, form) for number in values]
        if has_ratio:
            cells.append(_cell(ratio(values[1], values[0]), ".2f"))
        table.add_row(name, *cells)
    return table


def _cell(number: float | None, form: str) -> str:
    return "\N{EN DASH}" if number is None else format(number, form)
