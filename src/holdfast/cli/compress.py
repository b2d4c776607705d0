"""`holdfast compress`: what token-level eviction costs on texts and sessions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from holdfast.cli.compress_train import train
from holdfast.cli.options import FILE, HTML_FILE, JSON_FILE, argument, option, takes
from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.compress.encoded import EncodedSample
    from holdfast.compress.outcome import Outcome
    from holdfast.compress.summary import MethodSummary

__all__ = ["compress"]

_METHODS = "layer-defensivekv,defensivekv,critical-adakv,snapkv,streaming-llm,random"
_TASKS = "single,multi-query,variable-tracking,table,multi-turn,agent"


@click.group()
def compress() -> None:
    """Token-level eviction: lossy, for models of transformers, apart from serving."""


compress.add_command(train)


@compress.command("methods")
def list_methods() -> None:
    """List the eviction methods and their settings."""
    from rich.console import Console
    from rich.table import Table

    from holdfast.compress.model_files import require_libraries

    require_libraries()
    from holdfast.compress.methods import methods

    table = Table(box=None, pad_edge=False)
    for heading in ("method", "keeps", "settings"):
        table.add_column(heading, overflow="fold")
    for method in methods():
        table.add_row(method.name, method.summary, ", ".join(method.takes))
    Console(highlight=False).print(table)


@dataclass(frozen=True, slots=True)
class EvaluationArguments:
    """Options of `holdfast compress eval`."""

    model: Annotated[Path, argument(type=click.Path(path_type=Path))]
    methods: Annotated[
        str,
        option(
            "--methods",
            default=_METHODS,
            show_default=True,
            help="Methods, with commas between; `holdfast compress methods` lists them. Settings"
            " follow a name, as in snapkv:window=64:kernel=7.",
        ),
    ]
    budgets: Annotated[
        str,
        option(
            "--budgets",
            default="20,40,60",
            show_default=True,
            help="Entries that stay, in percent of all tokens, with commas between.",
        ),
    ]
    sessions: Annotated[
        Path | None,
        option(
            "--sessions",
            type=FILE,
            help="JSON lines, each with `messages` as sent to a chat API; their own answers are"
            " asked for, instead of generated tasks.",
        ),
    ]
    tasks: Annotated[
        str,
        option("--tasks", default=_TASKS, show_default=True, help="Generated tasks."),
    ]
    num_contexts: Annotated[
        int,
        option(
            "--contexts",
            default=5,
            show_default=True,
            type=click.IntRange(1),
            help="Contexts of each task.",
        ),
    ]
    num_tokens: Annotated[
        int,
        option(
            "--tokens",
            default=1024,
            show_default=True,
            type=click.IntRange(64),
            help="Length of a context.",
        ),
    ]
    seed: Annotated[
        int,
        option("--seed", default=0, show_default=True, type=int, help="Of the first context."),
    ]
    num_threads: Annotated[
        int | None,
        option("--threads", type=click.IntRange(1), help="CPU threads; torch's default if unset."),
    ]
    json: Annotated[Path | None, JSON_FILE]
    html: Annotated[Path | None, HTML_FILE]


@compress.command("eval")
@takes(EvaluationArguments)
def evaluate_methods(arguments: EvaluationArguments) -> None:
    """Measure what methods and budgets cost with MODEL, a directory or GGUF file.

    For every question the right answer is scored after the whole cache and after each compacted
    one: how likely it is, and whether a greedy answer would be exactly it.
    """
    from rich.console import Console

    from holdfast.cli.progress import progress_bar
    from holdfast.compress.model_files import load_model, require_libraries
    from holdfast.report.page import require_plots

    shares = _shares(arguments.budgets)
    if arguments.html is not None:
        require_plots()
    require_libraries()
    from holdfast.compress.evaluation import evaluate
    from holdfast.compress.method_gates import gates_of
    from holdfast.compress.methods import find_method

    methods = [find_method(name) for name in arguments.methods.split(",")]
    model, tokenizer = load_model(arguments.model, num_threads=arguments.num_threads)
    gates = gates_of(methods, model)
    samples = _samples(arguments, tokenizer)
    outcomes: list[Outcome] = []
    with progress_bar(Console(stderr=True), "contexts") as progress:
        task = progress.add_task("evaluating", total=len(samples))
        for sample in samples:
            outcomes += evaluate(model, [sample], methods, shares, gates)
            progress.advance(task)
    _report(arguments, outcomes, shares)


def _shares(budgets: str) -> list[float]:
    """Shares (above 0, at most 1) of budgets in percent.

    Raises:
        ConfigError: One is no number, or out of range.
    """
    shares = []
    for text in budgets.split(","):
        try:
            percent = float(text)
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            raise ConfigError(f"--budgets: {text!r} is no percentage above 0, at most 100")
        shares.append(percent / 100)
    return shares


def _samples(arguments: EvaluationArguments, tokenizer: Any) -> list[EncodedSample]:
    from holdfast.compress.encoded import encode_sample, read_sessions
    from holdfast.compress.tasks import make_sample

    if arguments.sessions is not None:
        return read_sessions(tokenizer, arguments.sessions)

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    seeds = range(arguments.seed, arguments.seed + arguments.num_contexts)
    return [
        encode_sample(tokenizer, make_sample(task, seed, arguments.num_tokens, count_tokens))
        for task in arguments.tasks.split(",")
        for seed in seeds
    ]


def _report(arguments: EvaluationArguments, outcomes: list[Outcome], shares: list[float]) -> None:
    """Print the table and a sentence a share; write the files that were asked for."""
    import msgspec

    from holdfast.compress.summary import certified, sentence, summaries
    from holdfast.report.manifest import run_manifest
    from holdfast.report.page import write_whole

    found = summaries(outcomes)
    sentences = [sentence(found, share) for share in shares]
    _print(found, sentences)
    certificates = certified(outcomes)
    options = {name: _plain(value) for name, value in asdict(arguments).items()}
    manifest = run_manifest(arguments=options, runs=())
    if arguments.json is not None:
        document = {
            "schema": "holdfast.eviction/1",
            "manifest": manifest,
            "summaries": found,
            "certified_shares": certificates,
            "outcomes": outcomes,
        }
        write_whole(arguments.json, msgspec.json.format(msgspec.json.encode(document), indent=1))
    if arguments.html is not None:
        from holdfast.compress.page import evaluation_page

        page = evaluation_page(found, sentences, certificates, manifest)
        write_whole(arguments.html, page.encode())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _print(found: list[MethodSummary], sentences: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from holdfast.compress.table import HEADINGS, rows

    table = Table(box=None, pad_edge=False)
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for row in rows(found):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    for line in sentences:
        console.print(line)
