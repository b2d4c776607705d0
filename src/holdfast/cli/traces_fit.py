"""`holdfast traces fit`: parameters for generated sessions, from a study."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from holdfast.errors import ConfigError
from holdfast.report.page import write_whole
from holdfast.workload.generator.files import fit_study, set_text

__all__ = ["fit"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="A set of parameters for generated sessions.")
@click.argument("study_path", metavar="STUDY", type=_FILE)
@click.option("--about", help="Text for the file: the workload, and the source of its numbers.")
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that ends in .json.",
)
def fit(study_path: Path, about: str | None, output: Path) -> None:
    """Fit parameters to STUDY and save them.

    `holdfast traces study --json` writes a STUDY;
    `holdfast traces generate --like OUTPUT` draws sessions from them; equal studies give equal
    bytes. See docs/generator.md.
    """
    if output.suffix != ".json":
        raise ConfigError(f"--output is {str(output)!r}; expected a name that ends in .json")
    write_whole(output, set_text(fit_study(study_path, about)).encode())
    Console().print(f"wrote {output.name}", highlight=False, markup=False, soft_wrap=True)
