"""`holdfast compress train`: retention gates for a model, on texts and sessions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from holdfast.cli.options import FILE, JSON_FILE, argument, option, takes
from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.compress.gates.batch import Batch
    from holdfast.compress.gates.checkpoint import TrainingRun
    from holdfast.compress.gates.trainer import StepLosses
    from holdfast.compress.gates.training_settings import TrainingSettings

__all__ = ["train"]


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """Options of `holdfast compress train`."""

    model: Annotated[Path, argument(type=click.Path(path_type=Path))]
    output: Annotated[
        Path | None,
        option(
            "--output",
            type=FILE,
            help="Where the gates go. Unset: beside MODEL, under its name with .KIND.safetensors;"
            " not inside its directory, where an engine would take them for weights of the model.",
        ),
    ]
    sessions: Annotated[
        Path | None,
        option(
            "--sessions",
            type=FILE,
            help="JSON lines, each with `messages` as sent to a chat API: gates learn to keep what"
            " the assistant's messages need. Unset: generated tasks.",
        ),
    ]
    tasks: Annotated[
        str,
        option(
            "--tasks",
            default="single,multi-query,variable-tracking,table,multi-turn,agent",
            show_default=True,
            help="Generated tasks.",
        ),
    ]
    num_contexts: Annotated[
        int,
        option(
            "--contexts",
            default=50,
            show_default=True,
            type=click.IntRange(1),
            help="Contexts of each generated task. `compress eval` starts with seed 0, this with"
            " 10,000.",
        ),
    ]
    num_tokens: Annotated[
        int,
        option(
            "--tokens",
            default=512,
            show_default=True,
            type=click.IntRange(64),
            help="Length of a sequence: that of the contexts that you will evict from. Longer"
            " sessions are cut.",
        ),
    ]
    kind: Annotated[
        str,
        option(
            "--kind",
            type=click.Choice(["rg", "rg10"]),
            default="rg10",
            show_default=True,
            help="One hidden layer, or two with an output layer that all layers share.",
        ),
    ]
    capacity: Annotated[
        float,
        option(
            "--capacity",
            default=32.0,
            show_default=True,
            type=click.FloatRange(0, min_open=True),
            help="Entries a head that the loss allows; far fewer than you will keep.",
        ),
    ]
    scope: Annotated[
        str,
        option(
            "--scope",
            type=click.Choice(["global", "local"]),
            default="global",
            show_default=True,
            help="Whether heads of all layers share the capacity, or each has its own.",
        ),
    ]
    num_steps: Annotated[
        int, option("--steps", default=200, show_default=True, type=click.IntRange(1))
    ]
    batches_per_step: Annotated[
        int,
        option(
            "--batch",
            default=4,
            show_default=True,
            type=click.IntRange(1),
            help="Sequences of a step.",
        ),
    ]
    learning_rate: Annotated[
        float,
        option(
            "--learning-rate",
            default=1e-3,
            show_default=True,
            type=click.FloatRange(0, min_open=True),
            help="The authors use 2e-4, with far more steps.",
        ),
    ]
    hidden_size: Annotated[
        int,
        option(
            "--hidden-size",
            default=512,
            show_default=True,
            type=click.IntRange(1),
            help="Width of the gates' hidden layers.",
        ),
    ]
    initial_bias: Annotated[
        float | None,
        option(
            "--initial-bias",
            type=float,
            help="Logit of retention to begin with. Unset: ln(--tokens) + 1, which keeps most of a"
            " sequence.",
        ),
    ]
    save_every: Annotated[
        int,
        option(
            "--save-every",
            default=10,
            show_default=True,
            type=click.IntRange(1),
            help="Steps between checkpoints. The same command goes on from the last one.",
        ),
    ]
    seed: Annotated[int, option("--seed", default=0, show_default=True, type=int)]
    num_threads: Annotated[
        int | None,
        option("--threads", type=click.IntRange(1), help="CPU threads; torch's default if unset."),
    ]
    json: Annotated[Path | None, JSON_FILE]


@click.command("train")
@takes(TrainArguments)
def train(arguments: TrainArguments) -> None:
    """Train gates that say which entries of MODEL's cache stay.

    MODEL itself stays as it is. Measure gates afterwards, as losses say little about eviction:
    `holdfast compress eval MODEL --methods rg10:gates=PATH`.
    """
    from holdfast.compress.model_files import load_model, require_libraries

    output = arguments.output or _beside(arguments.model, arguments.kind)
    if output.exists():
        raise ConfigError(f"{output}: exists already", hint="remove it, or choose another --output")
    require_libraries()
    from holdfast.compress.gates.checkpoint import TrainingRun
    from holdfast.compress.gates.gate import shape_for

    settings = _settings(arguments)
    model, tokenizer = load_model(arguments.model, num_threads=arguments.num_threads)
    initial_bias = arguments.initial_bias
    shape = shape_for(
        model.config,
        arguments.kind,
        hidden_size=arguments.hidden_size,
        initial_bias=math.log(arguments.num_tokens) + 1 if initial_bias is None else initial_bias,
    )
    run = TrainingRun(model, shape, settings, _batches(arguments, tokenizer), output)
    _report(arguments, run, _trained(run, arguments.save_every))


def _beside(model: Path, kind: str) -> Path:
    """A file beside a model's directory or file."""
    whole = model.resolve()
    name = whole.stem if whole.is_file() else whole.name
    return whole.with_name(f"{name}.{kind}.safetensors")


def _settings(arguments: TrainArguments) -> TrainingSettings:
    import msgspec

    from holdfast.compress.gates.training_settings import TrainingSettings

    given = asdict(arguments)
    fields = {name: given[name] for name in TrainingSettings.__struct_fields__ if name in given}
    return msgspec.convert(fields, TrainingSettings)


def _batches(arguments: TrainArguments, tokenizer: Any) -> list[Batch]:
    from holdfast.compress.encoded import encode_sample
    from holdfast.compress.gates.training_data import sample_batches, session_batches
    from holdfast.compress.tasks import make_sample

    num_tokens = arguments.num_tokens
    if arguments.sessions is not None:
        return session_batches(tokenizer, arguments.sessions, num_tokens)

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    first = 10_000 + arguments.seed * arguments.num_contexts
    return sample_batches(
        encode_sample(tokenizer, make_sample(task, seed, num_tokens, count_tokens))
        for task in arguments.tasks.split(",")
        for seed in range(first, first + arguments.num_contexts)
    )


def _trained(run: TrainingRun, save_every: int) -> list[StepLosses]:
    """Losses of all steps that were not done before."""
    from rich.console import Console

    from holdfast.cli.progress import progress_bar

    found = []
    errors = Console(stderr=True, highlight=False)
    if run.num_steps:
        errors.print(f"going on from step {run.num_steps} of {run.checkpoint}")
    with progress_bar(errors, "steps") as progress:
        task = progress.add_task("training", total=run.total_steps, completed=run.num_steps)
        for losses in run.run(save_every=save_every):
            found.append(losses)
            progress.update(task, completed=run.num_steps)
    return found


def _report(arguments: TrainArguments, run: TrainingRun, losses: list[StepLosses]) -> None:
    """Say where gates are and what losses were; write the file that was asked for."""
    import msgspec
    from rich.console import Console

    from holdfast.report.manifest import run_manifest
    from holdfast.report.page import write_whole

    console = Console(highlight=False, soft_wrap=True)
    for name in ("distillation", "next_token", "capacity") if losses else ():
        first, last = getattr(losses[0], name), getattr(losses[-1], name)
        console.print(f"{name.replace('_', '-')} loss: {first:.3f} → {last:.3f}")
    console.print(f"gates: {run.output}")
    console.print(
        f"measure them: holdfast compress eval {arguments.model}"
        f" --methods {arguments.kind}:gates={run.output},snapkv,streaming-llm,random"
    )
    if arguments.json is not None:
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(arguments).items()
        }
        document = {
            "schema": "holdfast.gate_training/1",
            "manifest": run_manifest(arguments=options, runs=()),
            "gates": run.record,
            "losses": losses,
        }
        write_whole(arguments.json, msgspec.json.format(msgspec.json.encode(document), indent=1))
