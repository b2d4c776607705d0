"""The options of `holdfast plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from holdfast.cli.load_options import GAP_CAP, LENIENT, SEED, SEEDS
from holdfast.cli.options import HTML_FILE, argument, option
from holdfast.cli.routes_token import TOKEN_FILE
from holdfast.sim.profile_file import profile_names

__all__ = ["PlanArguments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanArguments:
    """The arguments of `holdfast plan`.

    Attributes:
        paths: Trace files, and directories of them; or one study, or one engine's address.
        profile_name: Name or file of the cost profile; None takes the default one, or what a
            running engine has measured.
        kv_tokens: Size of the KV cache; None takes the profile's.
        host_gib: Size of a host tier; 0 for none.
        num_developers: Sessions at once that engines are wanted for.
        gap_cap_s: Longest gap (s).
        simulate: Whether to search with vLLM's own scheduler too.
        num_seeds: Seeds of that search.
        seed: The first of them.
        lenient: Whether faulty parts of files are left out and counted.
        token_path: File with the token of an engine's control routes.
        observe_s: For how long to watch an engine (s); 0 for one look.
        html_path: File for the page.
        is_json: Whether to print JSON.
    """

    paths: Annotated[
        tuple[str, ...], argument(nargs=-1, required=True, metavar="PATH...|STUDY|URL")
    ]
    profile_name: Annotated[
        str | None,
        option(
            "--profile",
            help=f"Cost profile of the hardware: {', '.join(profile_names())}, or a file.  "
            "[default: h100-llama3.1-8b, or what a running engine has measured]",
        ),
    ]
    kv_tokens: Annotated[
        int | None,
        option(
            "--kv-tokens",
            type=click.IntRange(min=1),
            help="Size of the KV cache, as vLLM prints it at the start.  [default: the profile's]",
        ),
    ]
    host_gib: Annotated[
        float,
        option(
            "--host-gib",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="Also plan with a host tier of this many GiB (vLLM's KV offloading).",
        ),
    ]
    num_developers: Annotated[
        int | None,
        option(
            "--developers",
            type=click.IntRange(min=1),
            help="Also say how many engines this many sessions at once need.",
        ),
    ]
    gap_cap_s: Annotated[float, GAP_CAP.but(default=300.0, show_default=True)]
    simulate: Annotated[
        bool,
        option(
            "--simulate",
            is_flag=True,
            help="Search with vLLM's own scheduler on a virtual clock, with Holdfast too: minutes.",
        ),
    ]
    num_seeds: Annotated[int, SEEDS.but(default=3)]
    seed: Annotated[int, SEED]
    lenient: Annotated[bool, LENIENT]
    token_path: Annotated[Path | None, TOKEN_FILE]
    observe_s: Annotated[
        float,
        option(
            "--observe",
            type=click.FloatRange(min=0, max=86_400),
            default=0.0,
            show_default=True,
            metavar="S",
            help="Watch a running engine for so many seconds; 0 goes by what it tells at once.",
        ),
    ]
    html_path: Annotated[Path | None, HTML_FILE]
    is_json: Annotated[bool, option("--json", is_flag=True, help="Print all as JSON.")]
