"""`holdfast pool`: inspection and garbage collection of a directory of KV blocks.

All of it is safe while engines use the pool: they compute missing blocks again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from holdfast.errors import ConfigError
from holdfast.pool.block_file import BlockState, verify_block
from holdfast.pool.directory import PoolDirectory
from holdfast.pool.garbage_collection import Bounds, Collected, collect_garbage

__all__ = ["pool"]

_GIB = 1 << 30
_SHOWN_FIELDS = ("model", "kv_cache_dtype", "vllm")

_directory = click.argument("directory", type=click.Path(path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def pool() -> None:
    """Look at and clean up a directory of KV blocks (HOLDFAST_POOL_DIR)."""


@pool.command("ls")
@_directory
@_as_json
def list_identities(directory: Path, *, as_json: bool) -> None:
    """List the identities in DIRECTORY: model, dtype, vLLM version, bytes, last use."""
    with _reported(directory) as found:
        rows = [_usage(found, name, fields) for name, fields in found.identities()]
    if as_json:
        _print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("identity", "model", "KV dtype", "vLLM"):
        table.add_column(heading, overflow="fold")
    for heading in ("blocks", "GiB", "last used"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        fields = row["fields"] or {}
        table.add_row(
            row["identity"],
            *(str(fields.get(name, "?")) for name in _SHOWN_FIELDS),
            *(f"{row['num_blocks']:,}", _gib(row["num_bytes"]), _ago(row["unused_s"])),
        )
    Console().print(table)


@pool.command()
@_directory
@_as_json
def stat(directory: Path, *, as_json: bool) -> None:
    """Show how much DIRECTORY holds, and when it was last used."""
    with _reported(directory) as found:
        rows = [_usage(found, name, fields) for name, fields in found.identities()]
    ages_s = [row["unused_s"] for row in rows if row["unused_s"] is not None]
    oldest_s = [row["longest_unused_s"] for row in rows if row["longest_unused_s"] is not None]
    total = {
        "num_identities": len(rows),
        "num_blocks": sum(row["num_blocks"] for row in rows),
        "num_bytes": sum(row["num_bytes"] for row in rows),
        "num_unfinished": sum(row["num_unfinished"] for row in rows),
        "unused_s": min(ages_s, default=None),
        "longest_unused_s": max(oldest_s, default=None),
    }
    if as_json:
        _print_json(total)
        return
    click.echo(
        f"{total['num_blocks']:,} blocks of {total['num_identities']} identities, "
        f"{_gib(total['num_bytes'])} GiB, {total['num_unfinished']} unfinished files"
    )
    click.echo(
        f"last used {_ago(total['unused_s'])}, longest unused {_ago(total['longest_unused_s'])}"
    )


@pool.command()
@_directory
@click.option("--remove", is_flag=True, help="Remove blocks that are not whole.")
@_as_json
@click.pass_context
def verify(context: click.Context, directory: Path, *, remove: bool, as_json: bool) -> None:
    """Read every block of DIRECTORY and check it; status 1 when some are not whole."""
    states: Counter[str] = Counter()
    bad: list[dict[str, str]] = []
    with _reported(directory) as found:
        for file in found.files():
            if file.is_temporary:
                continue
            path = Path(file.path)
            state = verify_block(path, found.location_of(path))
            if state is BlockState.MISSING:  # removed in the meantime
                continue
            states[state] += 1
            if state is not BlockState.WHOLE:
                bad.append({"path": str(path.relative_to(found.path)), "state": state})
                if remove:
                    path.unlink(missing_ok=True)
    if as_json:
        _print_json({"num_blocks": states.total(), "states": dict(states), "bad": bad})
    else:
        for entry in bad:
            click.echo(f"{entry['state']}: {entry['path']}")
        done = " and were removed" if remove and bad else ""
        click.echo(f"{states.total():,} blocks, {len(bad)} are not whole{done}")
    context.exit(1 if bad and not remove else 0)


@pool.command()
@_directory
@click.option(
    "--to-gib",
    type=click.FloatRange(min=0),
    help="Remove the longest unused blocks down to this size.",
)
@click.option(
    "--unused-s",
    type=click.FloatRange(min=0),
    help="Remove blocks unused for this long.",
)
@_as_json
def evict(directory: Path, to_gib: float | None, unused_s: float | None, *, as_json: bool) -> None:
    """Remove blocks of DIRECTORY by size or age, and unfinished files of crashes."""
    if to_gib is None and unused_s is None:
        raise click.UsageError("give --to-gib, --unused-s or both")
    bounds = Bounds(max_bytes=None if to_gib is None else to_gib * _GIB, ttl_s=unused_s)
    with _reported(directory) as found:
        collected = collect_garbage(found.files, bounds, _now_s())
    _print_removed(collected, as_json=as_json)


@pool.command()
@_directory
@click.option("--identity", help="Remove this identity only; `holdfast pool ls` lists them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_as_json
def clear(directory: Path, identity: str | None, *, yes: bool, as_json: bool) -> None:
    """Remove all blocks of DIRECTORY, or those of one identity."""
    with _reported(directory) as found:
        names = [name for name, _ in found.identities()] if identity is None else [identity]
        if not yes:
            click.confirm(f"remove {len(names)} identities of {found.path}?", abort=True)
        num_bytes = sum(file.num_bytes for name in names for file in found.files(name))
        for name in names:
            found.clear(name)
    if as_json:
        _print_json({"num_identities": len(names), "removed_bytes": num_bytes})
    else:
        click.echo(f"removed {len(names)} identities, {_gib(num_bytes)} GiB")


@contextmanager
def _reported(directory: Path) -> Iterator[PoolDirectory]:
    """The pool at `directory`; turns errors of the file system into one line."""
    try:
        yield PoolDirectory(directory.absolute())
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: {error.strerror}") from error


def _usage(found: PoolDirectory, name: str, fields: dict[str, Any] | None) -> dict[str, Any]:
    num_blocks = num_bytes = num_unfinished = 0
    first_s = last_s = None
    for file in found.files(name):
        num_bytes += file.num_bytes
        if file.is_temporary:
            num_unfinished += 1
            continue
        num_blocks += 1
        first_s = file.used_s if first_s is None else min(first_s, file.used_s)
        last_s = file.used_s if last_s is None else max(last_s, file.used_s)
    return {
        "identity": name,
        "fields": fields,
        "num_blocks": num_blocks,
        "num_bytes": num_bytes,
        "num_unfinished": num_unfinished,
        "unused_s": _since(last_s),
        "longest_unused_s": _since(first_s),
    }


def _print_removed(collected: Collected, *, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "num_evicted": collected.num_evicted,
                "num_expired": collected.num_expired,
                "num_abandoned": collected.num_abandoned,
                "removed_bytes": collected.removed_bytes,
                "num_blocks": collected.num_files,
                "num_bytes": collected.num_bytes,
            }
        )
        return
    num_blocks = collected.num_evicted + collected.num_expired
    click.echo(
        f"removed {num_blocks:,} blocks and {collected.num_abandoned} unfinished files, "
        f"{_gib(collected.removed_bytes)} GiB; {_gib(collected.num_bytes)} GiB are left"
    )


def _now_s() -> float:
    return time.time_ns() / 1e9


def _since(moment_s: float | None) -> float | None:
    return None if moment_s is None else max(_now_s() - moment_s, 0.0)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.3f}"


_UNITS: tuple[tuple[float, str], ...] = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def _ago(age_s: float | None) -> str:
    if age_s is None:
        return "-"
    size_s, unit = next((pair for pair in _UNITS if age_s >= pair[0]), _UNITS[-1])
    return f"{age_s / size_s:.0f} {unit} ago"


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2, sort_keys=True))
