"""Compares WEKA's gaps, the known defect put back and corrected, with the true ones.

python benchmarks/gap_defect.py --traces PATH [--others PATH] [--output DIR]

PATH holds corrected files of that format. The defect is put back into a copy of each, as the
published revisions have it: `think_time` becomes all of the time from the end of one kept call to
the beginning of the next. Then both are read, and their gaps compared. Times in these files are
rounded to a second, so an error of a second is none. `--others` are recordings of other agents that
have nothing to be corrected: how many would be taken for defective, once written as WEKA's files?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from holdfast.traces.conversion import write_sessions
from holdfast.traces.io import FileReport, read_sessions, trace_files
from holdfast.traces.storage import open_stored

KINDS = (("tool", "tool_result"), ("human", "user"))
Gaps = dict[tuple[str, int], tuple[str, float]]


def with_defect(document: dict[str, Any]) -> dict[str, Any]:
    """Add the time of dropped duplicates to the document's gaps. Mutates it."""
    calls = [request for request in document["requests"] if request["type"] != "subagent"]
    for before, after in pairwise(calls):
        if before.get("api_time") is not None and after.get("think_time") is not None:
            after["think_time"] = max(0.0, after["t"] - before["t"] - before["api_time"])
    return document


def gaps_of(path: Path, reports: list[FileReport]) -> Gaps:
    """Each turn's trigger, and the gap before it (s)."""
    return {
        (session.session_id, number): (turn.trigger, turn.gap_s)
        for session in read_sessions(path, on_file=reports.append)
        for number, turn in enumerate(session.turns)
        if number
    }


def recorded_gaps(path: Path) -> Gaps:
    """The same from the file as it is, nothing corrected."""
    with open_stored(path) as file:
        document = msgspec.json.decode(file.read())
    calls = [request for request in document["requests"] if request["type"] != "subagent"]
    return {
        (document["id"], number): (call["trigger"], call["think_time"])
        for number, call in enumerate(calls)
        if number
    }


def row(name: str, gaps: np.ndarray, true: np.ndarray) -> str:
    """One line of the table."""
    factor = np.exp(np.abs(np.log((gaps + 1) / (true + 1))).mean())
    return (
        f"| {name} | {len(gaps):,} | {gaps.mean():.1f} | {np.median(gaps):.1f} "
        f"| {np.mean(gaps < 1):.0%} | {np.median(np.abs(gaps - true)):.1f} | {factor:.2f} |"
    )


def compared(true: Gaps, defective: Gaps, corrected: Gaps) -> Iterator[str]:
    """The table."""
    yield "| waits for a | number | mean (s) | median (s) | under 1 s | median error (s) | off by |"
    yield "|---|---|---|---|---|---|---|"
    for kind, trigger in KINDS:
        places = [place for place, (brought_by, _) in true.items() if brought_by == trigger]
        honest = np.array([true[place][1] for place in places])
        for name, gaps in (("true", true), ("defect", defective), ("corrected", corrected)):
            yield row(f"{kind}, {name}", np.array([gaps[place][1] for place in places]), honest)


def num_mistaken(others: Path, directory: Path) -> tuple[int, int]:
    """Main agents of other recordings taken for defective, and all of them (counts).

    Only those with enough gaps to tell count.
    """
    reports: list[FileReport] = []
    write_sessions(read_sessions(others), directory, "weka", None)
    for _ in read_sessions(directory, on_file=reports.append):
        pass
    telling = [report for report in reports if report.gaps.is_sufficient]
    return sum(report.known_gap_defect for report in telling), len(telling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.traces is None:
        print("needs recorded files: --traces PATH")
        return
    true: Gaps = {}
    defective: Gaps = {}
    corrected: Gaps = {}
    honest_reports: list[FileReport] = []
    reports: list[FileReport] = []
    mistaken: tuple[int, int] | None = None
    with TemporaryDirectory() as directory:
        for path in trace_files(options.traces):
            with open_stored(path) as file:
                document = with_defect(msgspec.json.decode(file.read()))
            copy = Path(directory, f"{path.name.partition('.')[0]}.json")
            copy.write_bytes(msgspec.json.encode(document))
            true |= gaps_of(path, honest_reports)
            defective |= recorded_gaps(copy)
            corrected |= gaps_of(copy, reports)
        if options.others is not None:
            mistaken = num_mistaken(options.others, Path(directory, "others"))
    flagged = [report for report in reports if report.known_gap_defect]
    num_telling = sum(report.gaps.is_sufficient for report in reports)
    num_honest = sum(report.known_gap_defect for report in honest_reports)
    text = "\n".join(
        [
            *compared(true, defective, corrected),
            "",
            f"{len(flagged)} of {len(reports)} files with the defect are recognised, of "
            f"{num_telling} with enough gaps to tell; {num_honest} as they are. "
            f"{sum(r.num_corrected_gaps for r in reports):,} gaps are corrected. Off by: the mean "
            "factor between gap + 1 s and true gap + 1 s.",
            "",
        ]
    )
    if mistaken is not None:
        text += "Of {1} others, {0} would be taken for defective.\n".format(*mistaken)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"gap_defect-{options.traces.name}.md").write_text(text)


if __name__ == "__main__":
    main()
