"""`holdfast profile`: the simulator's cost profiles of engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.sim.calibration import FitQuality
    from holdfast.sim.profile import CostProfile

__all__ = ["profile"]

_MEAN_CONTEXT_TOKENS = 8192
_BATCH = 8


@click.group()
def profile() -> None:
    """List, show and fit the simulator's cost profiles."""


@profile.command("list")
def list_profiles() -> None:
    """List the profiles that come with Holdfast."""
    from holdfast.sim.profile_file import load_profile, profile_names

    table = Table(box=None, pad_edge=False)
    table.add_column("profile", no_wrap=True)
    for heading in ("KV tokens", "chunk", "prefill tok/s", f"decode tok/s x{_BATCH}"):
        table.add_column(heading, justify="right")
    for heading in ("kind", "engine"):
        table.add_column(heading, overflow="fold")
    for name in profile_names():
        one = load_profile(name)
        table.add_row(
            *(name, f"{one.kv_tokens:,}", f"{one.max_num_batched_tokens:,}"),
            *(f"{_prefill_rate(one):,.0f}", f"{_decode_rate(one):,.0f}", one.kind, one.summary),
        )
    console = Console()
    console.print(table)
    console.print(
        f"rates at {_MEAN_CONTEXT_TOKENS:,} tokens of context; decode with {_BATCH} sequences",
        style="dim",
        highlight=False,
    )


@profile.command()
@click.argument("name")
@click.option("--toml", "as_toml", is_flag=True, help="Print a file to edit and use.")
def show(name: str, as_toml: bool) -> None:
    """Show the values and sources of NAME, or of a .toml or .json file."""
    import msgspec

    from holdfast.sim.profile_file import load_profile

    one = load_profile(name)
    if as_toml:
        click.echo(one.to_toml(), nl=False)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    for key, value in msgspec.structs.asdict(one).items():
        if isinstance(value, int):
            table.add_row(key, f"{value:,}")
        elif isinstance(value, float):
            table.add_row(key, f"{value:.4g}")
    for tokens, seconds in one.decode_context_s:
        table.add_row(f"decode_context_s at {tokens:,} tokens", f"{seconds:.4g}")
    console = Console()
    console.print(f"[bold]{one.name}[/] ({one.kind}): {one.summary}", highlight=False)
    console.print(table)
    console.print("sources:")
    for source in one.sources:
        click.echo(f"  {source}")


@profile.command()
@click.argument("replay_turns", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--base", "base_name", required=True, help="Profile with the engine's sizes.")
@click.option(
    "--out",
    "out_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the profile here, as TOML.",
)
@click.option("--name", help="Name of the new profile.  [default: that of the file]")
@click.option("--policy", help="Use only this policy's turns, where the file has several.")
def calibrate(
    replay_turns: Path, base_name: str, out_path: Path, name: str | None, policy: str | None
) -> None:
    """Fit a profile to REPLAY_TURNS, which `holdfast replay --records` wrote.

    One session at a time (--concurrency 1) shows the cost of prompts and single answers; two to
    four at a time also show the cost of each further sequence. The engine must report how many
    prompt tokens were cached, and must compute prompts in chunks of the base profile's size.
    """
    from holdfast.sim.calibration import fit_profile, read_turns
    from holdfast.sim.profile_file import load_profile

    if out_path.suffix != ".toml":
        raise ConfigError(f"--out is {str(out_path)!r}, expected a file that ends in .toml")
    if not out_path.resolve().parent.is_dir():
        raise ConfigError(f"cannot write {str(out_path)!r}: its directory does not exist")
    base = load_profile(base_name)
    fitted, quality = fit_profile(
        read_turns(replay_turns, policy),
        base,
        name=name or out_path.stem,
        source=f"holdfast profile calibrate {replay_turns.name} --base {base.name}",
    )
    out_path.write_text(fitted.to_toml(), encoding="utf-8")
    console = Console()
    console.print(_fit_table(base, fitted))
    _print_quality(quality, console)


def _prefill_rate(one: CostProfile) -> float:
    chunk = one.max_num_batched_tokens
    return chunk / one.step_time_s([(chunk, _MEAN_CONTEXT_TOKENS)])


def _decode_rate(one: CostProfile) -> float:
    return _BATCH / one.step_time_s([(1, _MEAN_CONTEXT_TOKENS)] * _BATCH)


def _fit_table(base: CostProfile, fitted: CostProfile) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in (base.name, fitted.name):
        table.add_column(heading, justify="right")
    for key in (
        *("request_overhead_s", "request_overhead_s_per_token", "step_base_s"),
        "prefill_s_per_token",
        *("prefill_s_per_token_context", "decode_s_per_seq", "decode_s_per_context_token"),
    ):
        table.add_row(key, f"{getattr(base, key):.4g}", f"{getattr(fitted, key):.4g}")
    return table


def _print_quality(quality: FitQuality, console: Console) -> None:
    for quantity, num_rows, error, r2 in (
        (
            "first token",
            quality.num_first_tokens,
            quality.first_token_median_error,
            quality.first_token_r2,
        ),
        ("decoding", quality.num_decodes, quality.decode_median_error, quality.decode_r2),
    ):
        console.print(
            f"{quantity}: median error {error:.1%}, R2 {r2:.3f}, {num_rows} turns", highlight=False
        )
    if quality.is_split_assumed:
        console.print(
            "decode_s_per_seq cannot be fitted to these turns: split as in the base profile. Add "
            "turns from two to four sessions at once.",
            style="yellow",
        )
