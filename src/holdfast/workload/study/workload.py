"""The study of a workload: takes its sessions once, in order, and reports on all of them."""

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
from holdfast.workload.study.waits import WaitMeter, Waits

__all__ = ["SCHEMA", "EngineSize", "Study", "StudyOptions", "WorkloadStudy"]

SCHEMA: Final = "holdfast.study/1"


class EngineSize(msgspec.Struct, frozen=True):
    """The engine that sizes are compared with.

    Attributes:
        name: Of its profile.
        kv_bytes_per_token: KV of one token.
        kv_tokens: Capacity of its KV cache.
        prompt_s_per_token: Of a request alone on the engine.
        output_s_per_token: The same.
    """

    name: str
    kv_bytes_per_token: float
    kv_tokens: int
    prompt_s_per_token: float
    output_s_per_token: float

    def gib(self, num_tokens: float) -> float:
        """Memory for the KV of so many tokens, in GiB. Pure."""
        return num_tokens * self.kv_bytes_per_token / 2**30


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """How a workload is studied.

    Attributes:
        concurrency: Main agents live at once, one load each, >= 1; at least one. None starts all
            at their recorded arrivals instead.
        gap_cap_s: Longer gaps are cut to this when sessions are laid over each other.
        sample_rate: Share of the blocks that take part in what is said about caches, > 0; 1 is
            exact.
        max_blocks: How many may, for each load; where there are more, a sample of them does.
    """

    concurrency: Sequence[int] | None = (1, 4, 16, 64)
    gap_cap_s: float | None = None
    sample_rate: float = 1.0
    max_blocks: int = MAX_BLOCKS

    @property
    def loads(self) -> tuple[int | None, ...]:
        """Each load once, the smallest first."""
        return (None,) if self.concurrency is None else tuple(sorted(set(self.concurrency)))


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found; `schema` says how to read it.

    Attributes:
        schema: `holdfast.study/1`.
        manifest: What it was computed from.
        percents: Which percentile each entry of a distribution's table is.
        engine: What sizes are compared with, and how long requests are taken to last.
        sample_rate: Share of the blocks that took part in what is said about caches, at the end.
        gap_cap_s: Cut of the gaps in `loads`.
        shape: Lengths and growth.
        prefixes: What prompts repeat.
        waits: How long sessions are away, at what.
        tools_by_kind: Tool calls, where recorded.
        tools_by_name: The same by tool and head of the command.
        mutations: Prompts that do not extend the last one.
        fan_out: Sub-agents.
        profiles: How agents behave turn by turn, `main` ones and `sub_agent`s: what a generator
            needs to stand in for them.
        loads: By ascending concurrency, at the recorded gaps.
        busy_loads: The same sessions without gaps, so that all who are live always want to run: the
            order of requests on an engine that falls behind. Empty for recorded arrivals.
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


class WorkloadStudy:
    """Takes sessions one at a time; `finish` once.

    A family of sub-agents must follow its main agent directly to be laid over others together.
    """

    def __init__(self, engine: EngineSize, options: StudyOptions | None = None) -> None:
        self._engine = engine
        self._options = options or StudyOptions()
        self._stepper = Stepper()
        self._family: list[SteppedSession] = []
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
        """Take the next session.

        Args:
            session: Its blocks and id are compared within the reading only.
            reading: Counts the readings that sessions come from, from 0.
        """
        stepped = self._stepper.follow(session, reading)
        if self._family and self._family[0].family != stepped.family:
            self._end_family()
        self._family.append(stepped)
        self._shape.add(stepped)
        self._prefixes.add(stepped)
        self._waits.add(stepped)
        self._mutations.add(stepped)
        for turn in session.turns:
            for tool in turn.tools:
                # In the background it keeps nobody waiting.
                if not (tool.is_background or tool.start_s is None or tool.end_s is None):
                    self.add_tool_time(tool.name, tool.command, tool.end_s - tool.start_s)

    def add_tool_time(self, name: str, command: str | None, duration_s: float) -> None:
        """Take one recorded tool call; `command` as `Turn.tool_command`, `duration_s` >= 0."""
        self._tool_times.add(name, command, duration_s)

    def finish(self, manifest: dict[str, Any] | None = None) -> Study:
        """Report; nothing can be added after.

        Loads that the sessions are too few for are left out, but for the smallest.

        Raises:
            ConfigError: There was no session.
        """
        if not self._family:
            raise ConfigError("there is no session to study")
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
        )

    def _end_family(self) -> None:
        family = tuple(self._family)
        self._family.clear()
        self._fan_out.add(family)
        self._profiles.add(family)
        for load in (*self._loads.values(), *self._busy_loads.values()):
            load.add(family)


def _finished(loads: Mapping[int | None, LoadMeter]) -> tuple[Load, ...]:
    """The loads that were reached, and the smallest, which comes first."""
    return tuple(
        meter.finish(concurrency)
        for place, (concurrency, meter) in enumerate(loads.items())
        if meter.has_been_full or place == 0
    )
