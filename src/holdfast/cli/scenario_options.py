"""The load of `holdfast simulate`, and the part of it that counts, as options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import click

from holdfast.cli.lists import names
from holdfast.cli.options import option
from holdfast.core.slo import Slo
from holdfast.core.window import Window

__all__ = ["ScenarioOptions"]

SessionEnds = Literal["known", "unknown"]

_SECONDS: Final = click.FloatRange(min=0)
_POSITIVE: Final = click.FloatRange(min=0, min_open=True)
_SCENARIOS: Final = ("agentx",)
_AGENTX_WARM_UP_TURNS: Final = 11


def _session_ends(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    chosen = names(context, parameter, value)
    for each in chosen or ():
        if each not in ("known", "unknown"):
            raise click.BadParameter(f"{each!r} is neither known nor unknown", context, parameter)
    return chosen


def _shares(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    parts = names(context, parameter, value)
    if parts is None:
        return None
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not LOW,HIGH: two shares from 0 to 1", context, parameter
        ) from None
    return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOptions:
    """What sessions are at the start, what they tell, and what counts.

    Attributes:
        scenario: Name of a set of values for the options that are not given.
        start_s: Start of the part that counts (s).
        duration_s: Its length (s); None counts all of the run.
        mid_session: Shares of their recorded time between which the first sessions begin.
        session_ends: Whether the last request of a session marks it as ended; each gives a run.
        sub_agents: Whether sub-agents are sessions like any other or parts of their parent's tree.
        isolate: Whether sessions share no blocks.
        agent_ids: Whether requests name their agent and workflow.
        tool_events: Whether sessions tell the engine about their tools.
        graphs: Whether workflows declare their step graph.
        output_scale: Factor on the length of answers.
        idle_cap_s: Longest time that nothing is in flight (s).
        slo_ttft_s: Longest time to first token that is good (s).
        slo_itl_ms: Longest mean time between tokens that is good (ms).
    """

    scenario: Annotated[
        str | None,
        option(
            "--scenario",
            type=click.Choice(_SCENARIOS),
            help="agentx: --sub-agents tree --isolate --mid-session 0.25,0.75 --duration 3600 "
            "--gap-cap-s 300 --idle-cap-s 10, and eleven turns of each first session before "
            "time 0, without gaps and answers. Options that you give come first.",
        ),
    ]
    start_s: Annotated[
        float | None,
        option(
            "--start",
            type=_SECONDS,
            metavar="S",
            help="Count from so many simulated seconds on.  [default: 0]",
        ),
    ]
    duration_s: Annotated[
        float | None,
        option(
            "--duration",
            type=_POSITIVE,
            metavar="S",
            help="Count so many simulated seconds and stop; sessions repeat until then. Without "
            "it every session runs to its end and all of the run counts.",
        ),
    ]
    mid_session: Annotated[
        tuple[float, float] | None,
        option(
            "--mid-session",
            callback=_shares,
            metavar="LOW,HIGH",
            help="Begin the first sessions at a share of their recorded time between these two.",
        ),
    ]
    session_ends: Annotated[
        tuple[SessionEnds, ...],
        option(
            "--session-ends",
            callback=_session_ends,
            default="unknown",
            show_default=True,
            metavar="known|unknown,...",
            help="Whether a session's last request is marked as its last (holdfast_final).",
        ),
    ]
    sub_agents: Annotated[
        str | None,
        option(
            "--sub-agents",
            type=click.Choice(("own", "tree")),
            help="own: they are sessions like any other, and recorded gaps contain them. tree: "
            "their parent's turn starts them and waits for them.  [default: own]",
        ),
    ]
    isolate: Annotated[
        bool | None,
        option(
            "--isolate/--no-isolate",
            default=None,
            help="Share no blocks between sessions; trees share inside.  [default: share]",
        ),
    ]
    agent_ids: Annotated[
        bool,
        option(
            "--agent-ids",
            is_flag=True,
            help="Send the agent and the workflow of each request (holdfast_agent_id, "
            "holdfast_workflow_id).",
        ),
    ]
    tool_events: Annotated[
        bool,
        option(
            "--tool-events",
            is_flag=True,
            help="Tell the engine when tools start and have finished, as far as the traces have "
            "it. Needs --session-ids.",
        ),
    ]
    graphs: Annotated[
        bool,
        option(
            "--graphs",
            is_flag=True,
            help="Declare the step graph of each workflow that has one, before its first request. "
            "Needs --agent-ids.",
        ),
    ]
    output_scale: Annotated[
        float,
        option(
            "--output-scale",
            type=_POSITIVE,
            default=1.0,
            show_default=True,
            help="Multiply the length of answers; prompts keep theirs.",
        ),
    ]
    idle_cap_s: Annotated[
        float | None,
        option(
            "--idle-cap-s",
            type=_SECONDS,
            help="Cut times in which nothing is in flight to this (s).",
        ),
    ]
    slo_ttft_s: Annotated[
        float | None,
        option(
            "--slo-ttft-s",
            type=_POSITIVE,
            help="Also give the share of turns, and their output, within this time to first token.",
        ),
    ]
    slo_itl_ms: Annotated[
        float | None,
        option(
            "--slo-itl-ms",
            type=_POSITIVE,
            help="The same for the mean time between tokens.",
        ),
    ]

    def resolved(self) -> ScenarioOptions:
        """These options with the scenario's values where none is given. Pure."""
        if self.scenario is None:
            return self
        return replace(
            self,
            duration_s=3600.0 if self.duration_s is None else self.duration_s,
            mid_session=(0.25, 0.75) if self.mid_session is None else self.mid_session,
            sub_agents=self.sub_agents or "tree",
            isolate=True if self.isolate is None else self.isolate,
            idle_cap_s=10.0 if self.idle_cap_s is None else self.idle_cap_s,
        )

    @property
    def gap_cap_s(self) -> float | None:
        """The scenario's cap on gaps (s)."""
        return None if self.scenario is None else 300.0

    @property
    def num_warm_up_turns(self) -> int:
        """Turns of each first session before time 0 (count)."""
        return 0 if self.scenario is None else _AGENTX_WARM_UP_TURNS

    @property
    def is_tree(self) -> bool:
        """Whether sub-agents are parts of their parent's tree."""
        return self.sub_agents == "tree"

    @property
    def window(self) -> Window | None:
        """The part of the run that counts; None for all of it.

        Raises:
            UsageError: There is a start without a duration.
        """
        if self.duration_s is None:
            if self.start_s is not None:
                raise click.UsageError("--start needs --duration")
            return None
        return Window(self.start_s or 0.0, self.duration_s)

    @property
    def slo(self) -> Slo:
        """The service level objective."""
        itl_s = None if self.slo_itl_ms is None else self.slo_itl_ms / 1e3
        return Slo(self.slo_ttft_s, itl_s)
