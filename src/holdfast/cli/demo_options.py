"""The options of `holdfast demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from holdfast.bench.demo import DemoPlan, DemoPoint
from holdfast.cli.load_options import (
    CONCURRENCY,
    GAP_CAP,
    MAX_MODEL_LEN,
    SEED,
    SEEDS,
    SESSIONS,
    TIME_SCALE,
    TOKEN_SCALE,
    TRACES,
)
from holdfast.cli.options import HTML_FILE, JSON_FILE, option
from holdfast.errors import ConfigError

__all__ = ["DemoArguments"]

_POSITIVE = click.IntRange(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArguments:
    """The options of `holdfast demo`; the load options have other defaults.

    Attributes:
        traces: File or directory of sessions; None generates them.
        concurrency: Sessions live at once, below and past the cliff.
        num_sessions: Sessions in all, at the same two loads.
        kv_tokens: Size of the KV cache; None derives it from the sessions.
        max_model_len: Leaves out sessions that outgrow it, in replayed tokens.
        max_turns: Cuts sessions to this many turns.
        token_scale: Replayed tokens per recorded token.
        time_scale: Replayed seconds per recorded second of a gap.
        gap_cap_s: Longest gap, in recorded seconds.
        num_seeds: Number of comparisons, each on other sessions.
        seed: The first seed.
        has_tiers: Whether Holdfast also runs with tiers, and the engine is restarted.
        json_path: File for the results.
        html_path: File for the page.
        records_path: Directory for the turns of each run.
        keep_logs: Whether the servers' logs are kept.
    """

    traces: Annotated[Path | None, TRACES]
    concurrency: Annotated[
        tuple[int, int],
        CONCURRENCY.but(
            callback=None,
            nargs=2,
            type=_POSITIVE,
            default=(2, 14),
            metavar="LOW HIGH",
            help="Sessions live at once, below and past the cliff.",
        ),
    ]
    num_sessions: Annotated[
        tuple[int, int],
        SESSIONS.but(
            nargs=2,
            default=(2, 14),
            show_default=True,
            metavar="LOW HIGH",
            help="Sessions in all, at the same two loads.",
        ),
    ]
    kv_tokens: Annotated[
        int | None,
        option(
            "--kv-tokens",
            type=click.IntRange(min=64),
            help="Size of the KV cache, which must hold the longest session.  [default: a quarter "
            "of what the sessions past the cliff need at once]",
        ),
    ]
    max_model_len: Annotated[int, MAX_MODEL_LEN.but(default=8000, show_default=True)]
    max_turns: Annotated[
        int,
        option(
            "--turns",
            type=_POSITIVE,
            default=24,
            show_default=True,
            help="Cut sessions to this many turns, so that no long session runs alone at the end.",
        ),
    ]
    token_scale: Annotated[float, TOKEN_SCALE.but(default=1 / 16)]
    time_scale: Annotated[float, TIME_SCALE.but(default=0.005)]
    gap_cap_s: Annotated[float, GAP_CAP.but(default=60.0, show_default=True)]
    num_seeds: Annotated[
        int,
        SEEDS.but(
            help="Number of comparisons, each on other sessions; every second one runs Holdfast "
            "first."
        ),
    ]
    seed: Annotated[int, SEED.but(help="The first seed; it decides which sessions run.")]
    has_tiers: Annotated[
        bool,
        option(
            "--tiers/--no-tiers",
            default=True,
            show_default=True,
            help="Also run Holdfast with a host tier and a pool on disk, and restart the engine.",
        ),
    ]
    json_path: Annotated[Path | None, JSON_FILE]
    html_path: Annotated[Path | None, HTML_FILE]
    records_path: Annotated[
        Path | None,
        option(
            "--records",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Write the turns of each run into this directory, as JSON lines.",
        ),
    ]
    keep_logs: Annotated[
        bool, option("--keep-logs", is_flag=True, help="Keep the servers' logs, and print where.")
    ]

    def plan(self) -> DemoPlan:
        """The demonstration that the options describe.

        Raises:
            ConfigError: The KV cache is smaller than one whole request.
        """
        if self.kv_tokens is not None and self.kv_tokens < self.max_model_len:
            raise ConfigError(
                f"kv-tokens is {self.kv_tokens}, expected at least max-model-len "
                f"({self.max_model_len})",
                hint="vLLM does not start with a KV cache smaller than one whole request",
            )
        loads = zip(self.concurrency, self.num_sessions, strict=True)
        return DemoPlan(
            traces=self.traces,
            points=tuple(DemoPoint(concurrency, number) for concurrency, number in loads),
            seeds=tuple(range(self.seed, self.seed + self.num_seeds)),
            kv_tokens=self.kv_tokens,
            max_model_len=self.max_model_len,
            max_turns=self.max_turns,
            token_scale=self.token_scale,
            time_scale=self.time_scale,
            gap_cap_s=self.gap_cap_s,
            has_tiers=self.has_tiers,
        )
