"""The load options, the same in every command that runs sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import click

from holdfast.cli.lists import one_number, whole_numbers
from holdfast.cli.options import option
from holdfast.traces.selection import SessionSelection

__all__ = [
    "CONCURRENCY",
    "GAP_CAP",
    "LENIENT",
    "LOADS",
    "MAX_MODEL_LEN",
    "OPEN_LOOP",
    "SEED",
    "SEEDS",
    "SESSIONS",
    "TIME_SCALE",
    "TOKEN_SCALE",
    "TRACES",
    "LoadOptions",
]

TRACES: Final = option(
    "--traces",
    type=click.Path(exists=True, path_type=Path),
    help="File or directory of sessions.  [default: generated sessions]",
)
CONCURRENCY: Final = option(
    "--concurrency",
    callback=one_number,
    metavar="N",
    default="8",
    show_default=True,
    help="Sessions live at once; when one ends, the next one starts.",
)
LOADS: Final = CONCURRENCY.but(
    callback=whole_numbers,
    metavar="N,...",
    help="Sessions live at once, comma-separated: one run each.",
)
OPEN_LOOP: Final = option(
    "--open-loop", is_flag=True, help="Start sessions at their recorded times instead."
)
SESSIONS: Final = option(
    "--sessions", type=click.IntRange(min=1), help="Sessions in all.  [default: every one]"
)
GAP_CAP: Final = option(
    "--gap-cap-s",
    type=click.FloatRange(min=0),
    help="Cut recorded gaps that are longer than this to it (s).",
)
MAX_MODEL_LEN: Final = option(
    "--max-model-len",
    type=click.IntRange(min=2),
    help="Leave out sessions that outgrow this many replayed tokens.",
)
TIME_SCALE: Final = option(
    "--time-scale",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Replayed seconds per recorded second of a gap.",
)
TOKEN_SCALE: Final = option(
    "--token-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Replayed tokens per recorded token.",
)
SEED: Final = option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Decides which sessions run, and in which order.",
)
SEEDS: Final = option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of seeds, from --seed on: each one runs other sessions.",
)
LENIENT: Final = option(
    "--lenient",
    is_flag=True,
    help="Leave out and count what is wrong in a file, instead of stopping at it.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The sessions to run, and the way they are sent.

    Attributes:
        traces: File or directory of sessions; None generates them.
        concurrency: Sessions live at once, one number for each load.
        num_sessions: Sessions in all; None is the command's default.
        gap_cap_s: Longest gap, in recorded seconds; None keeps all gaps.
        max_model_len: Leaves out sessions that outgrow it, in replayed tokens.
        time_scale: Replayed seconds per recorded second of a gap.
        token_scale: Replayed tokens per recorded token.
        seed: The first seed.
        lenient: Whether faulty parts of files are left out and counted.
        session_ids: Whether requests carry their session's id.
        turn_ends: Whether requests carry the end of their turn.
    """

    traces: Annotated[Path | None, TRACES]
    concurrency: Annotated[tuple[int, ...], CONCURRENCY]
    num_sessions: Annotated[int | None, SESSIONS]
    gap_cap_s: Annotated[float | None, GAP_CAP]
    max_model_len: Annotated[int | None, MAX_MODEL_LEN]
    time_scale: Annotated[float, TIME_SCALE]
    token_scale: Annotated[float, TOKEN_SCALE]
    seed: Annotated[int, SEED]
    lenient: Annotated[bool, LENIENT]
    session_ids: Annotated[bool, option("--session-ids", is_flag=True, help="Send X-Session-ID.")]
    turn_ends: Annotated[
        bool,
        option(
            "--turn-ends/--no-turn-ends",
            default=True,
            show_default=True,
            help="Send what ends each turn, instead of the text that a real model would write.",
        ),
    ]

    def selection(
        self,
        *,
        num_sessions: int | None = None,
        max_model_len: int | None = None,
        gap_cap_s: float | None = None,
        is_tree: bool = False,
    ) -> SessionSelection:
        """The sessions to run; the arguments stand in for options that are not set. Pure."""
        return SessionSelection(
            num_sessions=self.num_sessions or num_sessions,
            gap_cap_s=gap_cap_s if self.gap_cap_s is None else self.gap_cap_s,
            is_tree=is_tree,
            max_model_len=self.max_model_len or max_model_len,
            token_scale=self.token_scale,
        )
