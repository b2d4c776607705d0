"""`holdfast traces generate`: sessions that stand in for recorded ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Final

import click
from rich.console import Console

from holdfast.cli.load_options import SEED, SESSIONS
from holdfast.cli.options import option, takes
from holdfast.cli.traces_table import losses_table
from holdfast.errors import ConfigError
from holdfast.traces.conversion import write_sessions
from holdfast.traces.writers.registry import WRITERS
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.files import fit_study, load_set, set_names
from holdfast.workload.generator.parameters import Parameters

__all__ = ["OUTPUT", "TO_FORMAT", "GenerateArguments", "generate"]

_SETS = ", ".join(set_names())


TO_FORMAT: Final = option("--to", type=click.Choice(list(WRITERS)), help="Format to write.")
OUTPUT: Final = option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A file that ends in .jsonl, and .gz, .xz or .zst to compress it; for weka also a new "
    "directory.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateArguments:
    """The arguments of `holdfast traces generate`.

    Attributes:
        set_name: Name or file of a set of parameters.
        study_path: Study to fit parameters to, instead of a set.
        num_sessions: Main agents; their sub-agents come on top.
        seed: Of the random draws.
        format_name: Format to write.
        output: File or directory to write.
    """

    set_name: Annotated[
        str | None,
        option("--like", metavar="NAME", help=f"{_SETS}; or a .toml or .json file."),
    ]
    study_path: Annotated[
        Path | None,
        option(
            "--study",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Fit the sessions to this study, which `holdfast traces study --json` wrote.",
        ),
    ]
    num_sessions: Annotated[
        int, SESSIONS.but(required=True, help="Main agents; their sub-agents come on top.")
    ]
    seed: Annotated[int, SEED.but(help="Equal seeds give equal sessions.")]
    format_name: Annotated[str, TO_FORMAT.but(default="holdfast", show_default=True)]
    output: Annotated[Path, OUTPUT]


@click.command(short_help="Sessions that stand in for recorded ones.")
@takes(GenerateArguments)
def generate(options: GenerateArguments) -> None:
    """Write generated sessions; the same arguments write the same bytes.

    They are drawn from a set of parameters that comes with Holdfast, from one of your own, or from
    one that is fitted to a study of your own traces. See docs/generator.md.
    """
    parameters, name = _parameters(options.set_name, options.study_path)
    families = islice(iterate_families(parameters, options.seed, name=name), options.num_sessions)
    losses = write_sessions(
        chain.from_iterable(families), options.output, options.format_name, None
    )
    console = Console()
    console.print(f"wrote {options.output.name}", highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))


def _parameters(set_name: str | None, study_path: Path | None) -> tuple[Parameters, str]:
    """The parameters, and a name for the sessions drawn from them."""
    if set_name is not None and study_path is None:
        return load_set(set_name), Path(set_name).stem
    if study_path is not None and set_name is None:
        return fit_study(study_path), study_path.stem
    raise ConfigError("expected either --like or --study, and not both")
