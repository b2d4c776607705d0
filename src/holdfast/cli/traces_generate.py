"""`holdfast traces generate`: sessions that stand in for recorded ones."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import click
from rich.console import Console

from holdfast.cli.traces_table import losses_table
from holdfast.errors import ConfigError
from holdfast.traces.conversion import write_sessions
from holdfast.traces.writers.registry import WRITERS
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.files import fit_study, load_set, set_names
from holdfast.workload.generator.parameters import Parameters

__all__ = ["generate"]

_SETS = ", ".join(set_names())


@click.command(short_help="Sessions that stand in for recorded ones.")
@click.option("--like", "set_name", metavar="NAME", help=f"{_SETS}; or a .toml or .json file.")
@click.option(
    "--study",
    "study_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Like those that `holdfast traces study --json` wrote this about.",
)
@click.option(
    "--sessions",
    "num_sessions",
    type=click.IntRange(min=1),
    required=True,
    help="Main agents; their sub-agents come on top.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--to",
    "format_name",
    type=click.Choice(list(WRITERS)),
    default="holdfast",
    show_default=True,
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A file that ends in .jsonl, and .gz, .xz or .zst where it is to be compressed; for weka "
    "also a new directory.",
)
def generate(
    set_name: str | None,
    study_path: Path | None,
    num_sessions: int,
    seed: int,
    format_name: str,
    output: Path,
) -> None:
    """Write generated sessions; the same arguments write the same bytes.

    They are drawn from a set of parameters that comes with Holdfast, from one of your own, or from
    one that is fitted to a study of your own traces. See docs/generator.md.
    """
    parameters, name = _parameters(set_name, study_path)
    families = islice(iterate_families(parameters, seed, name=name), num_sessions)
    losses = write_sessions(chain.from_iterable(families), output, format_name, None)
    console = Console()
    console.print(f"wrote {output.name}", highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))


def _parameters(set_name: str | None, study_path: Path | None) -> tuple[Parameters, str]:
    """The parameters, and what sessions drawn from them are called."""
    if set_name is not None and study_path is None:
        return load_set(set_name), Path(set_name).stem
    if study_path is not None and set_name is None:
        return fit_study(study_path), study_path.stem
    raise ConfigError("expected either --like or --study, and not both")
