"""The options of `holdfast simulate`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from holdfast.cli.lists import names, whole_numbers
from holdfast.cli.load_options import OPEN_LOOP, SEEDS
from holdfast.cli.options import FILE, HTML_FILE, JSON_FILE, Option, option
from holdfast.errors import PolicyError
from holdfast.sim.fleet import FleetPlan
from holdfast.sim.profile_file import profile_names

__all__ = ["SimulateArguments", "profile_option"]

_DEFAULT_POLICIES = "stateless,vllm-default,holdfast,clairvoyant"
_TOKENS = click.IntRange(min=0)


def profile_option() -> Option:
    """The option for a cost profile."""
    return option(
        "--profile",
        default="h100-llama3.1-8b",
        show_default=True,
        help=f"Cost profile of the hardware: {', '.join(profile_names())}, or a file.",
    )


def _routers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    from holdfast.bench.routers import check_router

    chosen = names(context, parameter, value)
    for each in chosen or ():
        try:
            check_router(each)
        except PolicyError as error:
            text = f"{error} ({error.hint})" if error.hint else str(error)
            raise click.BadParameter(text, context, parameter) from None
    return chosen


def _speeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in names(context, parameter, value or None) or ())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not X,...: numbers", context, parameter) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArguments:
    """The options of `holdfast simulate` besides the load options.

    Attributes:
        profile_name: Name or file of the cost profile.
        kv_tokens: Sizes of the KV cache; None takes the profile's.
        host_tokens: Size of the host tier; 0 for none.
        disk_tokens: Size of the disk tier; 0 for none.
        num_engines: Number of engines.
        routers: Names of routers; each gives a run.
        engine_speeds: Relative speeds of the first engines.
        dies_at_s: When the first engine dies (s); None for never.
        policies: Names of the policies.
        open_loop: Whether sessions start at their recorded times.
        block_tokens: Tokens in a KV block; None takes the traces' own.
        num_seeds: Number of seeds.
        num_warm_up: Sessions that run first and do not count.
        config_path: File with Holdfast's settings.
        num_jobs: Processes at once; None takes one for each core.
        on_ray: Whether a Ray cluster runs the simulations.
        json_path: File for the results.
        html_path: File for the page.
    """

    profile_name: Annotated[
        str,
        profile_option(),
    ]
    kv_tokens: Annotated[
        tuple[int, ...] | None,
        option(
            "--kv-tokens",
            callback=whole_numbers,
            metavar="N,...",
            help="Sizes of the KV cache, comma-separated.  [default: the profile's]",
        ),
    ]
    host_tokens: Annotated[
        int,
        option(
            "--host-tokens",
            type=_TOKENS,
            default=0,
            show_default=True,
            help="Size of the host tier, on vLLM's own offloading (0.32 or newer); 0 for none.",
        ),
    ]
    disk_tokens: Annotated[
        int,
        option(
            "--disk-tokens",
            type=_TOKENS,
            default=0,
            show_default=True,
            help="Size of the disk tier below the host tier; 0 for none. Needs --host-tokens.",
        ),
    ]
    num_engines: Annotated[
        int,
        option(
            "--engines",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Engines side by side, each with a cache of --kv-tokens; requests go by --router.",
        ),
    ]
    routers: Annotated[
        tuple[str, ...] | None,
        option(
            "--router",
            callback=_routers,
            metavar="NAME,...",
            help="Who divides requests among engines: holdfast, the gateway's routing and "
            "admission, or a routing policy alone, such as round-robin, sticky, prefix or "
            "kv-routing.  [default: holdfast, with several engines]",
        ),
    ]
    engine_speeds: Annotated[
        tuple[float, ...],
        option(
            "--engine-speed",
            callback=_speeds,
            default="",
            metavar="X,...",
            help="Speed of the first engines relative to the profile; all others have 1.",
        ),
    ]
    dies_at_s: Annotated[
        float | None,
        option(
            "--engine-dies-at",
            type=click.FloatRange(min=0),
            metavar="S",
            help="The first engine dies after so many simulated seconds; what it had not answered "
            "is sent again.",
        ),
    ]
    policies: Annotated[
        tuple[str, ...],
        option(
            "--policies",
            callback=names,
            metavar="NAME,...",
            default=_DEFAULT_POLICIES,
            show_default=True,
            help="Comma-separated; `holdfast policies` lists them.",
        ),
    ]
    open_loop: Annotated[bool, OPEN_LOOP]
    block_tokens: Annotated[
        int | None,
        option(
            "--block-size",
            type=click.IntRange(min=1),
            help="Tokens in a KV block.  [default: those of a trace's block]",
        ),
    ]
    num_seeds: Annotated[int, SEEDS]
    num_warm_up: Annotated[
        int,
        option(
            "--warm-up",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Run this many of the sessions first, all at once: Holdfast learns from them, and "
            "they do not count.",
        ),
    ]
    config_path: Annotated[
        Path | None,
        option(
            "--holdfast-config",
            type=FILE,
            help="TOML file with a [holdfast] table: settings of every policy, as for `serve`.",
        ),
    ]
    num_jobs: Annotated[
        int | None,
        option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Processes at once.  [default: one a core; with --ray, all that the cluster has]",
        ),
    ]
    on_ray: Annotated[bool, option("--ray", is_flag=True, help="Run on a Ray cluster.")]
    json_path: Annotated[Path | None, JSON_FILE]
    html_path: Annotated[Path | None, HTML_FILE]

    @property
    def fleets(self) -> tuple[FleetPlan, ...]:
        """The engines, once for each router.

        Raises:
            ConfigError: The options contradict each other.
        """
        routers: tuple[str | None, ...] = self.routers or ()
        if not routers:
            routers = ("holdfast",) if self.num_engines > 1 else (None,)
        return tuple(
            FleetPlan(self.num_engines, router, self.engine_speeds, self.dies_at_s)
            for router in routers
        )

    def jobs_for(self, num_runs: int) -> int | None:
        """Processes for so many runs; None leaves it to Ray."""
        if self.num_jobs is not None or self.on_ray:
            return self.num_jobs
        return min(num_runs, len(os.sched_getaffinity(0)))
