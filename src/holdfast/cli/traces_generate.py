"""`holdfast traces generate`: sessions that stand in for recorded ones."""

from __future__ import annotations

from collections.abc import Iterator
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
from holdfast.traces.record import Session
from holdfast.traces.writers.registry import WRITERS
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.files import fit_study, load_set, set_names
from holdfast.workload.workflows.kinds import WORKFLOWS
from holdfast.workload.workflows.sessions import iterate_workflow

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
        workflow_name: Kind of workflow, instead of a set.
        num_sessions: Main agents or workflows; sub-agents come on top.
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
    workflow_name: Annotated[
        str | None,
        option(
            "--workflow",
            type=click.Choice(list(WORKFLOWS)),
            help="Sessions in which several agents take turns.",
        ),
    ]
    num_sessions: Annotated[
        int,
        SESSIONS.but(required=True, help="Main agents or workflows; sub-agents come on top."),
    ]
    seed: Annotated[int, SEED.but(help="Equal seeds give equal sessions.")]
    format_name: Annotated[str, TO_FORMAT.but(default="holdfast", show_default=True)]
    output: Annotated[Path, OUTPUT]


@click.command(short_help="Sessions that stand in for recorded ones.")
@takes(GenerateArguments)
def generate(options: GenerateArguments) -> None:
    """Write generated sessions; the same arguments write the same bytes.

    They are drawn from a set of parameters that comes with Holdfast, from one of your own, from one
    that is fitted to a study of your own traces, or as a kind of workflow. See docs/generator.md.
    """
    families = islice(_families(options), options.num_sessions)
    losses = write_sessions(
        chain.from_iterable(families), options.output, options.format_name, None
    )
    console = Console()
    console.print(f"wrote {options.output.name}", highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))


def _families(options: GenerateArguments) -> Iterator[tuple[Session, ...]]:
    """Main agents with their sub-agents, or single workflows, endlessly."""
    set_name, study_path, workflow = options.set_name, options.study_path, options.workflow_name
    if sum(source is not None for source in (set_name, study_path, workflow)) != 1:
        raise ConfigError("expected one of --like, --study and --workflow")
    if workflow is not None:
        sessions = iterate_workflow(WORKFLOWS[workflow], options.seed, name=workflow)
        return ((session,) for session in sessions)
    if study_path is not None:
        return iterate_families(fit_study(study_path), options.seed, name=study_path.stem)
    assert set_name is not None
    return iterate_families(load_set(set_name), options.seed, name=Path(set_name).stem)
