"""Warnings where a run is not what was asked for, or lies beyond what is known."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from holdfast.core.results import RunResult
from holdfast.sim.profile import CostProfile

__all__ = ["warn_of_lighter_load", "warn_of_too_few", "warn_of_uncovered_steps"]

# Of a run's time; below it the last sessions dominate the figures, not the load.
_LEAST_SHARE_AT_LOAD = 0.5
_MOST_UNCOVERED_SHARE = 0.05


def warn_of_too_few(num_sessions: int, concurrency: int, errors: Console) -> None:
    """Warn before a run with fewer sessions than should be live at once."""
    if num_sessions < concurrency:
        errors.print(
            f"[yellow]{num_sessions} sessions cannot be {concurrency} at once:[/] the figures will "
            f"be for {num_sessions} or fewer. Run more sessions, or lower --concurrency.",
            highlight=False,
        )


def warn_of_lighter_load(run: RunResult, errors: Console) -> None:
    """Warn after a run in which too few sessions were live, or all too briefly."""
    if run.partial or run.peak_live_sessions is None or run.mean_live_sessions is None:
        return
    makespan_s, all_live_s = run.makespan_s or 0.0, run.all_live_s or 0.0
    if run.peak_live_sessions < run.concurrency:
        found = f"at most {run.peak_live_sessions} of {run.concurrency} sessions were live at once"
    elif all_live_s < _LEAST_SHARE_AT_LOAD * makespan_s:
        found = (
            f"all {run.concurrency} sessions were live for {all_live_s:,.1f} of {makespan_s:,.1f} s"
        )
    else:
        return
    errors.print(
        f"[yellow]{run.policy}: {found}[/], {run.mean_live_sessions:.1f} on average: the figures "
        "are for that load. Run more sessions, or lower --concurrency.",
        highlight=False,
    )


def warn_of_uncovered_steps(
    runs: Iterable[RunResult], profile: CostProfile, errors: Console
) -> None:
    """Warn after runs whose steps are larger than those the profile was fitted to."""
    share, policy = max((run.uncovered_share or 0.0, run.policy) for run in runs)
    if share < _MOST_UNCOVERED_SHARE:
        return
    limits = (
        (profile.fitted_decodes, "answers at once"),
        (profile.fitted_decode_context_tokens, "tokens of their contexts"),
        (profile.fitted_prompt_tokens, "tokens of a prompt"),
    )
    fitted = ", ".join(f"{limit:,} {what}" for limit, what in limits if limit)
    errors.print(
        f"[yellow]{100 * share:.0f} % of the time of {policy} is in steps beyond what profile "
        f"{profile.name} was fitted to[/] ({fitted}): their times are extrapolated.",
        highlight=False,
    )
