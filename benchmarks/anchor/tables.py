"""Writes simulated beside measured, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anchor.points import FULL, LONG_PAUSES, MEASURED, STOCK, SUB_AGENTS, TIER, Point
from anchor.simulated import LIMITS, Curve, Runs, Value, crossing, measured, value_of
from holdfast.report.manifest import run_manifest

__all__ = ["write_results"]

COLUMNS = {
    "hit_ratio": "hits",
    "output_tokens_per_s": "output tokens/s",
    "ttft_p50_s": "TTFT p50, s",
    "ttft_p90_s": "p90, s",
    "ttft_p99_s": "p99, s",
    "working_set_ratio": "working set / KV",
    "in_flight": "in flight",
}
SOURCES = {"gpu_hit_ratio": "hits in KV cache", "tier_hit_ratio": "hits in tier"}
_BOTH = f"{FULL}, {SUB_AGENTS}"
_AXES = {"working_set_ratio": "working set / KV", "prompts": "at once x mean prompt / KV"}
_ARMS = {"llm-d-thunderagent": "gate", "thunderagent": "thunderagent with decay"}


def write_results(output: Path, arguments: Mapping[str, Any]) -> str:
    """Write gpu_anchor.json and .md from all parts under `output`. Returns the tables."""
    runs = Runs.read(output / "parts")
    text = "\n".join(_document(runs)) + "\n"
    (output / "gpu_anchor.md").write_text(text)
    parts = [part for of_point in runs.parts.values() for part in of_point]
    manifest = run_manifest(arguments=arguments, runs=(), profile="2xh100-qwen3-coder-30b-fp8")
    manifest["seeds"] = sorted({part["seed"] for part in parts})
    document = {"manifest": manifest, "runs": parts}
    (output / "gpu_anchor.json").write_text(json.dumps(document, indent=1) + "\n")
    return text


def _document(runs: Runs) -> Iterator[str]:
    yield "# Simulated beside measured"
    yield ""
    yield (
        "Cells are measured → simulated, with the difference in points for hits and the ratio for "
        "others; bold is outside of what is asked (hits 5 points off the steepest part, output "
        "and TTFT p50 15 %, p99 30 %). Simulated are medians over seeds, lowest and highest in "
        "brackets. Measured are single runs, or means of two or three."
    )
    for title, step, tier in (
        ("Stock, without a tier (steps 13 and 20)", 20, False),
        ("Stock, with a tier of 400 GiB (step 20)", 20, True),
        ("Stock, with a tier of 400 GiB, trees against single streams (step 24)", 24, True),
        ("Stock, 65 to 110 sessions of 128 asked for against 64 (step 8)", 8, False),
    ):
        yield from _section(title, _stock_rows(runs, step, tier=tier), COLUMNS)
    yield from _section(
        "Where hits come from with a tier (step 20)",
        _stock_rows(runs, 20, tier=True, names=SOURCES),
        SOURCES,
    )
    yield from _pressure(runs)
    yield from _summary(runs)
    yield from _cliffs(runs)
    yield from _variations(runs)
    yield from _gates(runs)


def _section(title: str, rows: Sequence[list[str]], names: Mapping[str, str]) -> Iterator[str]:
    if rows:
        yield from ("", f"## {title}", "")
        yield from _table(["at once", "seeds", *names.values()], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _stock_rows(
    runs: Runs, step: int, *, tier: bool, names: Mapping[str, str] = COLUMNS
) -> list[list[str]]:
    rows = []
    for row in measured(step, tier=tier):
        point = Point(step, row.get("concurrency", 64), TIER if tier else 0)
        if point in runs.parts:
            cells = [
                _compared(name, _measured(row, name), runs.value(point, name)) for name in names
            ]
            rows.append([str(point.concurrency), str(len(runs.parts[point])), *cells])
    return rows


def _measured(row: Mapping[str, Any], name: str) -> Value | None:
    """A measured figure; requests in flight are those that run and those that wait."""
    if name == "in_flight" and "num_running" in row and row["arm"] == STOCK_ARM:
        running, waiting = value_of(row["num_running"]), value_of(row["num_waiting"])
        assert running is not None and waiting is not None
        both = running.middle + waiting.middle
        return Value(both, both, both)
    return value_of(row.get(name))


STOCK_ARM = "stock"


def _compared(name: str, real: Value | None, simulated: Value | None) -> str:
    if simulated is None:
        return "" if real is None else f"{_number(name, real.middle)} →"
    text = _spread(name, simulated)
    if real is None:
        return f"→ {text}"
    difference = _difference(name, real, simulated)
    cell = f"{_number(name, real.middle)} → {text}, {difference}"
    return f"**{cell}**" if simulated.within(name, real) is False else cell


def _difference(name: str, real: Value, simulated: Value) -> str:
    if "hit" in name:
        return f"{100 * (simulated.middle - real.middle):+.1f}"
    return f"{simulated.middle / real.middle:.2f}x" if real.middle else "-"


def _spread(name: str, value: Value) -> str:
    if value.low == value.high:
        return _number(name, value.middle)
    low, high = _number(name, value.low), _number(name, value.high)
    return f"{_number(name, value.middle)} ({low} to {high})"


def _number(name: str, value: float) -> str:
    if "hit" in name:
        return f"{value:.3f}"
    if name == "working_set_ratio":
        return f"{value:.2f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _pressure(runs: Runs) -> Iterator[str]:
    """Stock by working set: simulated figures between the simulated loads."""
    names = {name: COLUMNS[name] for name in COLUMNS if name != "working_set_ratio"}
    rows = []
    for step, variation in ((20, ""), (20, _BOTH), (24, ""), (24, _BOTH), (24, LONG_PAUSES)):
        for row in measured(step, tier=False):
            found = {name: _at_pressure(runs, step, variation, row, name) for name in names}
            if found["hit_ratio"] is not None:
                cells = [_compared(name, _measured(row, name), found[name]) for name in names]
                pressure = value_of(row["working_set_ratio"])
                assert pressure is not None
                rows.append([str(step), variation or "-", f"{pressure.middle:.2f}", *cells])
    yield from ("", "## Stock without a tier at equal working set / KV", "")
    yield "Simulated figures are interpolated between two loads, times by their logarithms."
    yield ""
    yield from _table(["step", "variation", "working set / KV", *names.values()], rows)


def _at_pressure(
    runs: Runs, step: int, variation: str, row: Mapping[str, Any], name: str
) -> Value | None:
    """A figure of the simulated curve at a measured working set, if the curve reaches it."""
    real = value_of(row.get("working_set_ratio"))
    points = runs.stock_curve(step, 0, variation)
    at = None if real is None else _curve(runs, points, name).at(real.middle)
    return None if at is None else Value(at, at, at)


def _summary(runs: Runs) -> Iterator[str]:
    """How many figures of stock are as near as is asked."""
    rows = []
    for title, step, tier in (
        ("steps 13 and 20, at the same load", 20, False),
        ("step 20 with a tier, at the same load", 20, True),
        ("step 24, at the same working set", 24, False),
    ):
        cells = []
        for name in LIMITS:
            verdicts = []
            for row in measured(step, tier=tier):
                real = _measured(row, name)
                if step == 24:
                    found = _at_pressure(runs, step, "", row, name)
                else:
                    found = runs.value(Point(step, row["concurrency"], TIER if tier else 0), name)
                if real is not None and found is not None:
                    verdicts.append(found.within(name, real))
            counted = [verdict for verdict in verdicts if verdict is not None]
            cells.append(f"{sum(counted)} of {len(counted)}")
        rows.append([title, *cells])
    yield from ("", "## Figures of stock that are as near as is asked", "")
    yield from _table(["set", *(COLUMNS[name] for name in LIMITS)], rows)


def _curve(runs: Runs, points: Sequence[Point], name: str) -> Curve:
    found = []
    for point in points:
        pressure, figure = runs.value(point, "working_set_ratio"), runs.value(point, name)
        if pressure is not None and figure is not None:
            found.append((pressure.middle, figure.middle))
    return Curve(found, is_ratio="hit" in name)


def _cliffs(runs: Runs) -> Iterator[str]:
    """Where hits fall below a half, on two axes."""
    rows = []
    for step, tier in ((20, False), (20, True), (24, False), (24, True)):
        for axis, title in _AXES.items():
            curve = [
                (x, hits.middle)
                for row in measured(step, tier=tier)
                if (x := _axis(row, axis)) is not None and (hits := value_of(row["hit_ratio"]))
            ]
            real = crossing(curve)
            text = (
                "" if not curve else f"below {curve[0][0]:.2f}" if real is None else f"{real:.2f}"
            )
            for variation in ("", FULL, SUB_AGENTS, _BOTH, LONG_PAUSES):
                points = runs.stock_curve(step, TIER if tier else 0, variation)
                at = crossing([p for point in points if (p := _at(runs, point, axis)) is not None])
                if at is not None:
                    share = "" if real is None else f"{at / real:.2f}x"
                    where = f"{step}{', tier' if tier else ''}"
                    rows.append([where, title, variation or "-", text, f"{at:.2f}", share])
    yield from ("", "## Cliffs: where hits fall below a half", "")
    yield from _table(["step", "axis", "variation", "measured", "simulated", "ratio"], rows)


def _axis(row: Mapping[str, Any], axis: str) -> float | None:
    found = value_of(row.get("working_set_ratio" if axis != "prompts" else "mean_prompt_tokens"))
    if found is None:
        return None
    scale = 1.0 if axis != "prompts" else row["concurrency"] / MEASURED["kv_tokens"]
    return float(found.middle * scale)


def _at(runs: Runs, point: Point, axis: str) -> tuple[float, float] | None:
    hits = runs.value(point, "hit_ratio")
    x = runs.value(point, "working_set_ratio" if axis != "prompts" else "mean_prompt_tokens")
    if hits is None or x is None:
        return None
    scale = 1.0 if axis != "prompts" else point.concurrency / MEASURED["kv_tokens"]
    return x.middle * scale, hits.middle


def _variations(runs: Runs) -> Iterator[str]:
    """Each variation beside the same point without it."""
    names = {**COLUMNS, **SOURCES}
    rows = []
    varied = [p for p in runs.parts if p.variation and p.policy == STOCK]
    for point in sorted(varied, key=lambda p: (p.step, p.host_tokens, p.concurrency, p.variation)):
        base = Point(point.step, point.concurrency, point.host_tokens)
        cells = []
        for name in names:
            before, after = runs.value(base, name, runs.seeds(point)), runs.value(point, name)
            old = "" if before is None else _number(name, before.middle)
            cells.append(f"{old} → {'' if after is None else _spread(name, after)}")
        tier = ", tier" if point.host_tokens else ""
        rows.append([f"{point.step}{tier}", str(point.concurrency), point.variation, *cells])
    yield from ("", "## What moves it: the simulated point without and with a variation", "")
    yield from _table(["step", "at once", "variation", *names.values()], rows)


def _gates(runs: Runs) -> Iterator[str]:
    """Policies against stock at the same point, simulated and measured."""
    rows = []
    gated = [p for p in runs.parts if p.policy != STOCK]
    for point in sorted(gated, key=lambda p: (p.step, p.host_tokens, p.concurrency, p.policy)):
        stock = replace(point, policy=STOCK)
        tier = ", tier" if point.host_tokens else ""
        where = [f"{point.step}{tier}", str(point.concurrency)]
        pressure = runs.value(stock, "working_set_ratio")
        real = _real_gate(point, pressure)
        if real is not None:
            concurrency, *figures = real
            name = f"{_ARMS[point.policy]}, measured at {concurrency}"
            rows.append([*where, name, *_gain_cells(*figures)])
        seeds = runs.seeds(point)
        own = {name: runs.value(point, name) for name in (*COLUMNS, "ttft_p99_with_waiting_s")}
        base = {name: runs.value(stock, name, seeds) for name in COLUMNS}
        rows.append([*where, point.policy, *_gain_cells(base, own)])
    yield from ("", "## Gates and policies against stock at the same point", "")
    yield from _table(
        [
            *("step", "at once", "policy", "hits", "output tokens/s", "times stock"),
            *("TTFT p50, s", "p90, s", "p99, s", "p99 times stock", "p99 with those waiting, s"),
        ],
        rows,
    )


_Figures = dict[str, Value | None]


def _real_gate(point: Point, pressure: Value | None) -> tuple[int, _Figures, _Figures] | None:
    """Measured stock and gate: at the same load, in step 24 at the nearest working set."""
    gates = {
        row.get("concurrency", point.concurrency): row
        for row in measured(point.step, _ARMS.get(point.policy, ""), tier=bool(point.host_tokens))
    }

    def distance(row: Mapping[str, Any]) -> float:
        real = value_of(row.get("working_set_ratio"))
        if point.step != 24 or real is None or pressure is None:
            return float(abs(row.get("concurrency", point.concurrency) - point.concurrency))
        return abs(real.middle - pressure.middle)

    stocks = sorted(measured(point.step, tier=bool(point.host_tokens)), key=distance)
    for row in stocks[:1]:
        concurrency = row.get("concurrency", point.concurrency)
        if concurrency in gates and (point.step == 24 or not distance(row)):
            both = (
                {key: _measured(each, key) for key in COLUMNS} for each in (row, gates[concurrency])
            )
            return concurrency, *both
    return None


def _gain_cells(
    stock: Mapping[str, Value | None], own: Mapping[str, Value | None]
) -> Iterator[str]:
    def text(name: str) -> str:
        value = own.get(name)
        return "" if value is None else _spread(name, value)

    def times(name: str) -> str:
        before, after = stock.get(name), own.get(name)
        if before is None or after is None or not before.middle:
            return ""
        return f"{after.middle / before.middle:.2f}"

    yield text("hit_ratio")
    yield text("output_tokens_per_s")
    yield times("output_tokens_per_s")
    yield from (text("ttft_p50_s"), text("ttft_p90_s"), text("ttft_p99_s"), times("ttft_p99_s"))
    yield text("ttft_p99_with_waiting_s")
