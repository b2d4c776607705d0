"""Tables of simulated policies: runs the parts that are missing, and writes what there is.

A part is one policy under one load with all seeds, a file under DIR/parts. An interrupted benchmark
goes on where it stopped, and one without parts goes on from DIR/NAME.json; where a policy has
changed, name it with --again. `NAME.md` has a table for each load, `NAME.json` the runs by load and
the manifest: commands, commits, versions and digests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from holdfast.core.results import RunDocument, RunResult
from holdfast.report.bound_distance import best_rules
from holdfast.report.comparison import compare
from holdfast.report.document import read_document, write_document
from holdfast.report.markdown import markdown_tables
from holdfast.report.page import write_whole
from holdfast.report.simulation_report import simulation_caption
from holdfast.report.tables import ReportTable, policies_table

POLICIES_A_PROCESS = 4
"""A process reads the traces once; one that is interrupted loses what it has not written."""

LINE_LENGTH = 120
LEGEND = (
    "In brackets the lowest and highest seed. The last column is the distance to `clairvoyant`, "
    "which knows the future: 1.00x is as good. A star marks other policies that know it."
)

LIMITS = ("--gap-cap-s", "120", "--max-model-len", "200000")
WINDOW = (*LIMITS, "--mid-session", "0,0.9", "--start", "600", "--duration", "1800")
"""A steady state: sessions begin in their middle, and ten minutes do not count."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy with settings of the `[holdfast]` table, under a name of its own."""

    name: str
    policy: str
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Load:
    """Policies under one load.

    Attributes:
        name: Name in file names, unique in its table.
        arguments: Of `holdfast simulate`, without traces, policies and seeds.
        policies: Names of policies, or variants of them.
        title: Stands before the load in the table's heading.
        traces: File or directory of sessions; `{seed}` in it stands for each seed.
    """

    name: str
    arguments: tuple[str, ...]
    policies: tuple[str | Variant, ...]
    title: str = ""
    traces: str | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All policies, those without settings of their own included."""
        return tuple(p if isinstance(p, Variant) else Variant(p, p, {}) for p in self.policies)


@dataclass(frozen=True, slots=True)
class _Command:
    """One process: policies that have the same settings, on some seeds of one load."""

    load: Load
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    parts: tuple[Path, ...]


@dataclass(slots=True)
class TableOptions:
    """What all scripts with simulated tables ask for.

    Attributes:
        traces: File or directory of sessions; None generates them.
        num_seeds: Seeds from 0 on.
        num_jobs: Simulations at once.
        output: Directory of the results.
        policies: Names of those to run; None runs all.
        loads: Names of those to run; None runs all.
        again: Names of policies whose parts are made again.
    """

    traces: Path | None
    num_seeds: int
    num_jobs: int
    output: Path
    policies: frozenset[str] | None = None
    loads: frozenset[str] | None = None
    again: frozenset[str] = frozenset()

    @property
    def traces_name(self) -> str:
        """Name of the traces in file names."""
        return "generated" if self.traces is None else self.traces.name


def table_parser(documentation: str | None) -> argparse.ArgumentParser:
    """The common options; a script adds its own."""
    parser = argparse.ArgumentParser(description=(documentation or "").partition("\n")[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--policies", help="Comma-separated; run only these.")
    parser.add_argument("--loads", help="Comma-separated; run only these.")
    parser.add_argument("--again", default="", help="Comma-separated; run these policies anew.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    return parser


def table_options(parsed: argparse.Namespace) -> TableOptions:
    """The common options of parsed arguments."""
    policies, loads = (
        None if names is None else frozenset(names.split(","))
        for names in (parsed.policies, parsed.loads)
    )
    again = frozenset(parsed.again.split(","))
    return TableOptions(
        parsed.traces, parsed.seeds, parsed.jobs, parsed.output, policies, loads, again
    )


def make_table(name: str, loads: Sequence[Load], options: TableOptions) -> None:
    """Run what is missing and write `NAME.md` and `NAME.json`."""
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    _restore(name, loads, options)
    with ThreadPoolExecutor(options.num_jobs) as pool:
        for _ in pool.map(lambda command: _run(command, options), _missing(name, loads, options)):
            _write(name, loads, options)
    _write(name, loads, options)
    print((options.output / f"{name}.md").read_text())


def _restore(name: str, loads: Sequence[Load], options: TableOptions) -> None:
    """Write the parts that an earlier table has and remove those to be made again."""
    path = options.output / f"{name}.json"
    earlier = msgspec.json.decode(path.read_bytes(), type=_Table) if path.exists() else None
    for load in loads:
        for variant in load.variants:
            part = _part(name, load, variant, options)
            is_chosen = options.loads is None or load.name in options.loads
            if variant.name in options.again and is_chosen:
                part.unlink(missing_ok=True)
                continue
            known = None if earlier is None else earlier.part(load.name, variant.name)
            if known is not None and not part.exists():
                write_document(part, known)


class _Table(msgspec.Struct, frozen=True):
    """A table that was written: its manifest, and runs by load."""

    manifest: dict[str, Any]
    runs: dict[str, list[RunResult]]

    def part(self, load: str, variant: str) -> RunDocument | None:
        """What it has of one policy under one load; None if nothing."""
        shared = dict(self.manifest)
        own = shared.pop("parts").get(f"{load}-{variant}")
        runs = [run for run in self.runs.get(load, ()) if run.policy == variant]
        return RunDocument(manifest=shared | own, runs=runs) if own and runs else None


def _missing(name: str, loads: Sequence[Load], options: TableOptions) -> list[_Command]:
    """The processes that make all missing parts."""
    commands = []
    for load in loads:
        if options.loads is not None and load.name not in options.loads:
            continue
        wanted = [
            variant
            for variant in load.variants
            if options.policies is None or variant.name in options.policies
        ]
        missing = [v for v in wanted if not _part(name, load, v, options).exists()]
        for group in _processes(missing):
            parts = tuple(_part(name, load, variant, options) for variant in group)
            commands.append(_Command(load, group, tuple(range(options.num_seeds)), parts))
    return commands


def _processes(variants: Sequence[Variant]) -> Iterator[tuple[Variant, ...]]:
    plain = [variant for variant in variants if not variant.settings]
    for first in range(0, len(plain), POLICIES_A_PROCESS):
        yield tuple(plain[first : first + POLICIES_A_PROCESS])
    yield from ((variant,) for variant in variants if variant.settings)


def _part(name: str, load: Load, variant: Variant, options: TableOptions) -> Path:
    return options.output / "parts" / f"{name}-{load.name}-{variant.name}.json"


def _run(command: _Command, options: TableOptions) -> None:
    """Simulate some policies and write a part for each."""
    traces = command.load.traces or (None if options.traces is None else str(options.traces))
    documents = []
    if traces is not None and "{seed}" in traces:
        for seed in command.seeds:
            documents.append(_simulate(command, traces.format(seed=seed), (seed,)))
    else:
        documents.append(_simulate(command, traces, command.seeds))
    manifest = documents[0].manifest | {"commit": code_commit()}
    manifest["digests"] = {k: v for each in documents for k, v in each.manifest["digests"].items()}
    for variant, path in zip(command.variants, command.parts, strict=True):
        runs = [
            msgspec.structs.replace(run, policy=variant.name)
            for document in documents
            for run in document.runs
            if run.policy == variant.policy
        ]
        write_document(path, RunDocument(manifest=manifest, runs=runs))


def _simulate(command: _Command, traces: str | None, seeds: Sequence[int]) -> RunDocument:
    """Run `holdfast simulate` once."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        arguments = ["simulate", *([] if traces is None else ["--traces", traces])]
        arguments += ["--policies", ",".join(variant.policy for variant in command.variants)]
        arguments += [*command.load.arguments, "--seed", str(seeds[0]), "--seeds", str(len(seeds))]
        if settings := command.variants[0].settings:
            config = Path(directory) / "holdfast.toml"
            lines = [f"{key} = {value!r}\n" for key, value in settings.items()]
            config.write_text("".join(["[holdfast]\n", *lines]))
            arguments += ["--holdfast-config", str(config)]
        print("$ holdfast", *arguments, flush=True)
        arguments += ["--jobs", "1", "--json", str(result)]
        subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return read_document(result)


def code_commit() -> str:
    """The commit of the code that runs, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


@dataclass(slots=True)
class _Manifest:
    """What the parts of a table have in common, and the commands and commits of each."""

    common: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, part: str, manifest: Mapping[str, Any]) -> None:
        """Add a part."""
        rest = dict(manifest)
        self.digests |= rest.pop("digests", {})
        arguments = {k: v for k, v in rest.pop("arguments").items() if v not in (None, {}, False)}
        arguments.pop("json_path", None)
        self.commands[part] = {"commit": rest.pop("commit"), "arguments": arguments}
        self.common |= rest

    def to_builtins(self) -> dict[str, Any]:
        """Return the manifest of a document."""
        return {**self.common, "digests": self.digests, "parts": self.commands}


def _write(name: str, loads: Sequence[Load], options: TableOptions) -> None:
    """Write the table of all finished parts, and their runs."""
    manifest = _Manifest()
    runs: dict[str, list[RunResult]] = {}
    tables: list[ReportTable] = []
    caption = ""
    for load in loads:
        of_load: list[RunResult] = []
        for variant in load.variants:
            path = _part(name, load, variant, options)
            if path.exists():
                document = read_document(path)
                manifest.add(f"{load.name}-{variant.name}", document.manifest)
                of_load += document.runs
        if of_load:
            of_load = best_rules(of_load)
            runs[load.name] = of_load
            tables += _tables(load, of_load)
            caption = simulation_caption(compare(of_load))
    lines = textwrap.wrap(f"{caption} {LEGEND}", LINE_LENGTH)
    text = "\n".join([*lines, "", markdown_tables(tables)]) if tables else ""
    (options.output / f"{name}.md").write_text(text)
    content = msgspec.json.encode({"manifest": manifest.to_builtins(), "runs": runs})
    write_whole(options.output / f"{name}.json", msgspec.json.format(content, indent=1) + b"\n")


def _tables(load: Load, runs: Sequence[RunResult]) -> Iterator[ReportTable]:
    comparison = compare(runs)
    for point in comparison.points:
        table = policies_table(comparison, point, has_ranges=True)
        yield replace(table, title=f"{load.title}: {table.title}") if load.title else table
