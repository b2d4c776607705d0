"""The load of a simulation: which sessions run, from where on, with what hints."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.window import Window
from holdfast.errors import ConfigError

__all__ = ["SimulationOptions"]


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Load and scaling options of a simulation.

    Attributes:
        concurrency: Live sessions, >= 1: when one ends, the next starts. None starts each at its
            arrival, relative to the first one.
        time_scale: Simulated seconds per recorded second of a gap.
        token_scale: Simulated tokens per recorded token.
        output_scale: Further factor on the length of answers; prompts keep theirs.
        session_ids: Whether requests carry their session id.
        agent_ids: Whether requests name their agent, and the workflow that it is a step of.
        tool_events: Whether sessions tell the engine when their tools start and have finished, as
            far as they are known.
        graphs: Whether sessions with a step graph declare it before their first request.
        turn_ends: Whether requests carry the hint of their turn's end, which the engine uses only
            after that end.
        session_ends: Whether a session's last request is marked as its last.
        is_tree: Whether a session starts its sub-agents and waits for them. Otherwise sub-agents
            are sessions like any other, and recorded gaps contain them.
        is_isolated: Whether sessions (trees, where `is_tree`) share no blocks with each other.
        mid_session: The first sessions begin at a share of their recorded time between these two;
            None begins them at their first turn.
        num_warm_up_turns: Turns of each of the first sessions that run before time 0, without gaps
            and with answers of one token.
        idle_cap_s: Longest time that nothing is in flight; longer ones are cut (s). None keeps all.
        window: The part of the run that counts; sessions repeat until it ends. None runs all
            sessions once and counts everything.
    """

    concurrency: int | None
    time_scale: float = 1.0
    token_scale: float = 1.0
    output_scale: float = 1.0
    session_ids: bool = False
    agent_ids: bool = False
    tool_events: bool = False
    graphs: bool = False
    turn_ends: bool = True
    session_ends: bool = False
    is_tree: bool = False
    is_isolated: bool = False
    mid_session: tuple[float, float] | None = None
    num_warm_up_turns: int = 0
    idle_cap_s: float | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency!r}; expected at least 1")
        if not 0 <= self.time_scale < float("inf"):
            raise ConfigError(f"time-scale is {self.time_scale!r}; expected a number >= 0")
        if not 0 < self.output_scale < float("inf"):
            raise ConfigError(f"output-scale is {self.output_scale!r}; expected a number > 0")
        if self.mid_session is not None and not (
            0 <= self.mid_session[0] <= self.mid_session[1] < 1
        ):
            raise ConfigError(
                f"mid-session is {self.mid_session!r}; expected two shares, 0 <= LOW <= HIGH < 1"
            )
        if self.tool_events and not self.session_ids:
            raise ConfigError(
                "tool events name sessions, and requests do not", hint="add --session-ids"
            )
        if self.graphs and not self.agent_ids:
            raise ConfigError(
                "declared graphs name agents, and requests do not", hint="add --agent-ids"
            )
        if self.concurrency is None and (
            self.mid_session or self.num_warm_up_turns or self.window or self.is_tree
        ):
            raise ConfigError(
                "an open loop has neither a window, nor starts in mid-session, nor agent trees",
                hint="give --concurrency instead of --open-loop",
            )

    def all_at_once(self, num_sessions: int) -> SimulationOptions:
        """These options for sessions that begin together and run to their end. Pure."""
        return replace(
            self,
            concurrency=num_sessions,
            is_tree=False,
            mid_session=None,
            num_warm_up_turns=0,
            window=None,
        )
