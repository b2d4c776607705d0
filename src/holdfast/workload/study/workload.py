"""The study of a workload: one pass over its sessions, one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.errors import ConfigError
from holdfast.traces.record import Session
from holdfast.workload.study.distribution import PERCENTS
from holdfast.workload.study.fan_out import FanOut, FanOutMeter
from holdfast.workload.study.load import Load, LoadMeter
from holdfast.workload.study.mutations import MutationMeter, Mutations
from holdfast.workload.study.overlay import Overlay, ServiceTime
from holdfast.workload.study.prefixes import Prefixes, PrefixMeter
from holdfast.workload.study.profile import Profile
from holdfast.workload.study.profile_meter import ProfilesMeter
from holdfast.workload.study.sampling import MAX_BLOCKS, BlockSampler
from holdfast.workload.study.shape import Shape, ShapeMeter
from holdfast.workload.study.steps import SteppedSession, Stepper
from holdfast.workload.study.tool_times import ToolTime, ToolTimeMeter
from holdfast.workload.study.turn_sample import MAX_TURNS, TurnSample, TurnSampleMeter
from holdfast.workload.study.waits import WaitMeter, Waits

__all__ = ["SCHEMA", "EngineSize", "Study", "StudyOptions", "WorkloadStudy"]

SCHEMA: Final = "holdfast.study/1"


class EngineSize(msgspec.Struct, frozen=True):
    """The engine that sizes are compared with.

    Attributes:
        name: Name of its profile.
        kv_bytes_per_token: KV bytes of one token.
        kv_tokens: Capacity of its KV cache.
        prompt_s_per_token: Time per prompt token of a request alone on the engine.
        output_s_per_token: Time per answer token of such a request.
    """

    name: str
    kv_bytes_per_token: float
    kv_tokens: int
    prompt_s_per_token: float
    output_s_per_token: float

    def gib(self, num_tokens: float) -> float:
        """Memory for the KV of `num_tokens`, in GiB. Pure."""
        return num_tokens * self.kv_bytes_per_token / 2**30


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """Options of a study.

    Attributes:
        concurrency: Main agents live at once, >= 1, one value for each load. None starts all
            sessions at their recorded arrivals.
        gap_cap_s: Cap of longer gaps in overlays; None keeps them.
        sample_rate: Share of the blocks that cache figures are computed from, > 0; 1 is exact.
        max_blocks: Maximum number of such blocks for each load; more blocks are sampled.
    """

    concurrency: Sequence[int] | None = (1, 4, 16, 64)
    gap_cap_s: float | None = None
    sample_rate: float = 1.0
    max_blocks: int = MAX_BLOCKS

    @property
    def loads(self) -> tuple[int | None, ...]:
        """The distinct loads, ascending."""
        return (None,) if self.concurrency is None else tuple(sorted(set(self.concurrency)))


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a study.

    Attributes:
        schema: `holdfast.study/1`.
        manifest: Inputs and versions of the computation.
        percents: The percentile of each entry of a distribution's table.
        engine: The engine that sizes are compared with; its times per token are the service times.
        sample_rate: Final share of the blocks that cache figures are computed from.
        gap_cap_s: Cap of the gaps in `loads`.
        shape: Lengths and growth.
        prefixes: Repeated prompt tokens.
        waits: Gaps by their cause.
        tools_by_kind: Recorded tool calls by tool kind.
        tools_by_name: The same by tool and head of the command.
        mutations: Prompts that do not extend the last one.
        fan_out: Sub-agents.
        profiles: Turn-by-turn behaviour of `main` agents and `sub_agent`s, for the generator's fit.
        loads: Loads by ascending concurrency, at the recorded gaps.
        busy_loads: The same sessions without gaps: the order of requests on an overloaded engine,
            where every live session is queued or running. Empty for recorded arrivals.
        turns: A sample of the turns, for `holdfast plan`; None in studies before it had one.
    """

    schema: str = SCHEMA
    manifest: dict[str, Any]
    percents: tuple[float, ...] = PERCENTS
    engine: EngineSize
    sample_rate: float
    gap_cap_s: float | None
    shape: Shape
    prefixes: Prefixes
    waits: Waits
    tools_by_kind: dict[str, ToolTime]
    tools_by_name: dict[str, ToolTime]
    mutations: Mutations
    fan_out: FanOut
    profiles: dict[str, Profile]
    loads: tuple[Load, ...]
    busy_loads: tuple[Load, ...]
    turns: TurnSample | None = None


class WorkloadStudy:
    """Accumulates sessions; call `finish` once.

    Sub-agents must directly follow their main agent to be overlaid as one family.
    """

    def __init__(self, engine: EngineSize, options: StudyOptions | None = None) -> None:
        self._engine = engine
        self._options = options or StudyOptions()
        self._stepper = Stepper()
        self._family: list[SteppedSession] = []
        self._turns = TurnSampleMeter()
        self._shape = ShapeMeter()
        self._prefixes = PrefixMeter()
        self._waits = WaitMeter()
        self._tool_times = ToolTimeMeter()
        self._mutations = MutationMeter()
        self._fan_out = FanOutMeter()
        self._profiles = ProfilesMeter()
        sampler = BlockSampler(self._options.sample_rate, self._options.max_blocks)
        service = ServiceTime(engine.prompt_s_per_token, engine.output_s_per_token)
        gap_cap_s = self._options.gap_cap_s
        self._loads: dict[int | None, LoadMeter] = {
            concurrency: LoadMeter(Overlay(concurrency, service, gap_cap_s), sampler)
            for concurrency in self._options.loads
        }
        self._busy_loads: dict[int | None, LoadMeter] = {
            concurrency: LoadMeter(Overlay(concurrency, service, gap_cap_s=0.0), sampler)
            for concurrency in self._options.loads
            if concurrency is not None
        }

    def add(self, session: Session, reading: int = 0) -> None:
        """Add the next session.

        Args:
            session: The session; its ids are comparable within its reading only.
            reading: Number of its reading, from 0.
        """
        stepped = self._stepper.follow(session, reading)
        if self._family and self._family[0].family != stepped.family:
            self._end_family()
        self._family.append(stepped)
        self._turns.add(session, reading)
        self._shape.add(stepped)
        self._prefixes.add(stepped)
        self._waits.add(stepped)
        self._mutations.add(stepped)
        for turn in session.turns:
            for tool in turn.tools:
                # The agent does not wait for a background call.
                if not (tool.is_background or tool.start_s is None or tool.end_s is None):
                    self.add_tool_time(tool.name, tool.command, tool.end_s - tool.start_s)

    def add_tool_time(self, name: str, command: str | None, duration_s: float) -> None:
        """Add a recorded tool call; `command` as `Turn.tool_command`, `duration_s` >= 0."""
        self._tool_times.add(name, command, duration_s)

    def finish(self, manifest: dict[str, Any] | None = None) -> Study:
        """Return the report; no session can be added afterwards.

        Leaves out loads with too few sessions, except the smallest load.

        Raises:
            ConfigError: There was no session.
        """
        if not self._family:
            raise ConfigError("no session to study")
        self._end_family()
        loads, busy_loads = _finished(self._loads), _finished(self._busy_loads)
        meters = (*self._loads.values(), *self._busy_loads.values())
        return Study(
            manifest=manifest or {},
            engine=self._engine,
            sample_rate=min(meter.sample_rate for meter in meters),
            gap_cap_s=self._options.gap_cap_s,
            shape=self._shape.result(),
            prefixes=self._prefixes.result(),
            waits=self._waits.result(),
            tools_by_kind=self._tool_times.by_kind(),
            tools_by_name=self._tool_times.by_name(),
            mutations=self._mutations.result(),
            fan_out=self._fan_out.result(),
            profiles=self._profiles.result(),
            loads=loads,
            busy_loads=busy_loads,
            turns=self._turns.result(MAX_TURNS),
        )

    def _end_family(self) -> None:
        family = tuple(self._family)
        self._family.clear()
        self._fan_out.add(family)
        self._profiles.add(family)
        for load in (*self._loads.values(), *self._busy_loads.values()):
            load.add(family)


def _finished(loads: Mapping[int | None, LoadMeter]) -> tuple[Load, ...]:
    """The loads that were reached, and always the smallest, which comes first."""
    return tuple(
        meter.finish(concurrency)
        for index, (concurrency, meter) in enumerate(loads.items())
        if meter.has_been_full or index == 0
    )
