"""The plan of one run: all inputs that a worker process needs for one result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from holdfast.core.slo import Slo
from holdfast.errors import ConfigError
from holdfast.sim.agent_trees import AgentTrees
from holdfast.sim.fleet import FleetPlan
from holdfast.sim.load import SimulationOptions
from holdfast.sim.profile import CostProfile
from holdfast.sim.replays import Replays
from holdfast.traces.formats.trace_file import OnSkipped, ignored
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, common_prefix_length
from holdfast.traces.selection import Selection, SessionSelection
from holdfast.workload.synthetic import iterate_sessions

__all__ = ["RunPlan", "Workload"]

_GENERATED_SESSIONS = 60


@dataclass(frozen=True, slots=True)
class Workload:
    """The source of a run's sessions.

    Attributes:
        traces: Trace file or directory; None generates sessions.
        selection: Number of sessions, and cuts.
        is_lenient: Whether to leave out malformed parts of files.
    """

    traces: Path | None
    selection: SessionSelection
    is_lenient: bool = False

    def sessions(
        self,
        seed: int,
        on_file: Callable[[FileReport], None] | None = None,
        on_skipped: OnSkipped = ignored,
        on_unread: OnSkipped = ignored,
    ) -> Selection:
        """Select the sessions of `seed`, the same for every policy. Reads files.

        Args:
            seed: Determines the sessions and their order.
            on_file: As in `read_sessions`.
            on_skipped: As in `read_sessions`, if `is_lenient`.
            on_unread: As in `read_sessions`.

        Raises:
            TraceError: A file cannot be read, and it is the only one or may not be left out.
            ConfigError: No session remains.
        """
        selection = self.selection
        source: Iterator[Session]
        if self.traces is None:
            if selection.num_sessions is None:
                selection = replace(selection, num_sessions=_GENERATED_SESSIONS)
            source = islice(iterate_sessions(seed), 100 * (selection.num_sessions or 1))
        else:
            source = read_sessions(
                self.traces,
                seed=seed,
                on_file=on_file,
                on_skipped=on_skipped if self.is_lenient else None,
                on_unread=on_unread,
            )
        return selection.select(source)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run: a policy, a seed, a load and a cache.

    Attributes:
        policy: Name of the policy.
        seed: Determines the sessions and their order.
        workload: Source of the sessions.
        options: Load and scaling options.
        profile: Cost profile of the engine.
        kv_tokens: Size of the KV cache.
        block_tokens: Tokens in a block of the engine.
        settings: Holdfast's settings that differ from their defaults.
        num_warm_up: Number of uncounted sessions that run first, all at once.
        host_tokens: Size of the host tier; 0 for none.
        disk_tokens: Size of the disk tier; 0 for none.
        slo: Limits whose share of turns is wanted.
        fleet: The engines; each has a cache of `kv_tokens`, and tiers of its own.
    """

    policy: str
    seed: int
    workload: Workload
    options: SimulationOptions
    profile: CostProfile
    kv_tokens: int
    block_tokens: int
    settings: dict[str, object] = field(default_factory=dict)
    num_warm_up: int = 0
    host_tokens: int = 0
    disk_tokens: int = 0
    slo: Slo = field(default_factory=Slo)
    fleet: FleetPlan = field(default_factory=FleetPlan)

    def __post_init__(self) -> None:
        if self.disk_tokens and not self.host_tokens:
            raise ConfigError(
                "disk-tokens needs host-tokens", hint="the disk tier copies by way of the host tier"
            )

    @property
    def host_block_s(self) -> float:
        """Time to copy a block between cache and host memory, in one direction (s)."""
        profile = self.profile
        return self.block_tokens * profile.kv_bytes_per_token / profile.host_link_bytes_per_s

    @property
    def disk_block_s(self) -> float:
        """Time to copy a block between host memory and disk, in one direction (s)."""
        profile = self.profile
        return self.block_tokens * profile.kv_bytes_per_token / profile.disk_bytes_per_s

    @property
    def num_blocks(self) -> int:
        """Number of cache blocks, vLLM's null block included."""
        return self.kv_tokens // self.block_tokens + 1

    @property
    def cached_tokens(self) -> int:
        """Capacity of the cache's full blocks (tokens)."""
        return (self.num_blocks - 1) * self.block_tokens

    def num_blocks_ever(self, sessions: Sequence[Session]) -> int:
        """Upper bound on the blocks that all turns together fill (count). Pure."""
        num_tokens = 0.0
        for session in sessions:
            before: tuple[int, ...] = ()
            for turn in session.turns:
                num_shared = common_prefix_length(before, turn.block_ids)
                num_new_tokens = turn.prompt_tokens - num_shared * session.block_size_tokens
                num_tokens += num_new_tokens + turn.output_tokens + 2 * self.block_tokens
                before = turn.block_ids
        scale = max(self.options.token_scale, 1.0) * max(self.options.output_scale, 1.0)
        return int(num_tokens * scale) // self.block_tokens + 1

    def replays(self, sessions: Sequence[Session]) -> Replays:
        """The sessions as the engine sees them. Pure.

        Raises:
            ConfigError: The token scale does not fit the blocks.
        """
        options = self.options
        return Replays(
            sessions,
            options.token_scale,
            self.block_tokens,
            output_scale=options.output_scale,
            roots=AgentTrees(sessions).roots if options.is_tree else None,
            is_isolated=options.is_isolated,
        )

    def check(self, sessions: Sequence[Session]) -> None:
        """Raise unless the sessions fit the block size and the cache. Pure.

        Raises:
            ConfigError: The token scale does not fit the blocks, or a request outgrows the cache.
        """
        replays = self.replays(sessions)
        for number, session in enumerate(sessions):
            peak = replays.peak_tokens(number)
            if peak > self.kv_tokens:
                raise ConfigError(
                    f"session {session.session_id!r} reaches {peak:,} tokens, more than the cache "
                    f"of {self.kv_tokens:,}",
                    hint="raise --kv-tokens, or lower --max-model-len to leave such sessions out",
                )
