"""A capacity plan for reading: one sentence, one table, what to know about it."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.text import Text

from holdfast.core.capacity import Capacity, CapacityPlan, Span
from holdfast.report.cells import UNKNOWN
from holdfast.report.tables import Column, ReportTable, RowGroup
from holdfast.report.terminal import terminal_table

__all__ = ["plan_notes", "plan_sentence", "plan_table", "plan_text"]


def plan_sentence(plan: CapacityPlan) -> str:
    """The plan in one sentence. Pure."""
    stock = next((one for one in plan.capacities if one.method == "simulated"), plan.capacities[0])
    engine = f"{plan.profile} with {plan.kv_tokens:,} KV tokens"
    if stock.fits is None or stock.cliff is None:
        return f"More than {stock.searched_to:,} of these sessions fit {engine} at once."
    fitting = math.floor(stock.fits.median)
    fits = f"{fitting} of these sessions fit" if fitting != 1 else "one of these sessions fits"
    sentence = (
        f"About {fits} {engine} at once, and about {stock.cliff.median:.1f} "
        f"({_range(stock.cliff)}) make its hit ratio collapse"
    )
    if stock.engines is not None:
        engines = "1 engine" if stock.engines == 1 else f"{stock.engines} engines"
        sentence += f"; {plan.num_developers} developers need {engines}"
    return f"{sentence}."


def plan_text(plan: CapacityPlan) -> Group:
    """The whole plan as renderables. Pure."""
    head = Text(plan.sentence, style="bold")
    parts: list[RenderableType] = [head, Text(), terminal_table(plan_table(plan)), Text()]
    parts += map(Text, plan_notes(plan))
    parts += (Text(f"warning: {warning}", style="yellow") for warning in plan.warnings)
    return Group(*parts)


def plan_notes(plan: CapacityPlan) -> list[str]:
    """What the figures mean, and what an observed engine did. Pure."""
    notes = [
        "fits: keeps 95 % of what an infinite cache hits. cliff: has lost half of it. Both in "
        "sessions at once, median and range: of an estimate over resampled sessions, of "
        "simulated runs over seeds.",
        f"Rule of thumb from other people's engines: {plan.rule[0]:.1f} to {plan.rule[1]:.1f} "
        "sessions (sessions x mean prompt = 0.75 to 0.87 of the KV cache, gaps of at most 10 s).",
    ]
    if all(one.method == "estimate" for one in plan.capacities):
        notes.append(
            "An estimate from lengths and pauses alone. --simulate checks it with vLLM's own "
            "scheduler and adds Holdfast."
        )
    seen = plan.observed
    if seen is not None:
        notes.append(
            f"The engine at {seen.url} ({seen.policy}) has {seen.num_live:,} live sessions. Of "
            f"{seen.num_turns:,} turns that it told, {_share(seen.hit_ratio)} of prompt tokens "
            f"were cached; an infinite cache would have had {_share(seen.possible_hit_ratio)}."
        )
    return notes


def plan_table(plan: CapacityPlan) -> ReportTable:
    """The set-ups, one a row. Pure."""
    title = (
        f"{plan.num_sessions} sessions, mean prompt {plan.mean_prompt_tokens:,.0f} tokens, "
        f"an infinite cache hits {plan.best_hit_ratio:.1%}"
    )
    engines = [] if plan.num_developers is None else [f"engines for {plan.num_developers}"]
    columns = (Column("set-up"), Column("by"), Column("fits"), Column("cliff"))
    rows = tuple(_row(one, bool(engines)) for one in plan.capacities)
    return ReportTable(
        title=title, columns=columns + tuple(map(Column, engines)), groups=(RowGroup("", rows),)
    )


def _row(one: Capacity, has_engines: bool) -> tuple[str, ...]:
    cells = (one.setup, one.method, _cell(one.fits, one), _cell(one.cliff, one))
    if not has_engines:
        return cells
    return (*cells, UNKNOWN if one.engines is None else str(one.engines))


def _cell(span: Span | None, one: Capacity) -> str:
    if span is None:
        return f"more than {one.searched_to}"
    return f"{span.median:.1f} ({_range(span)})"


def _range(span: Span) -> str:
    return f"{span.low:.1f} to {span.high:.1f}"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"
