"""A running engine as a planner sees it: its turns, sizes and measured speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from holdfast.bench.engine_sessions import read_states
from holdfast.core.capacity import ObservedEngine
from holdfast.core.miss import REPEATED_REASONS
from holdfast.core.results import ratio
from holdfast.core.seen_state import SeenEngine, SeenMiss, SeenState
from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile
from holdfast.workload.study.turn_sample import TurnSample, TurnSampleMeter

__all__ = ["ASSUMED_LINK_BYTES_PER_S", "EngineTurns", "measured_profile"]

_LIVE: Final = ("waiting", "running", "at_tool", "human_away")
_LOOK_S: Final = 2.0
_LEAST_STEP_S: Final = 1e-6
ASSUMED_LINK_BYTES_PER_S: Final = 25e9
"""Speed of copies from host memory where an engine has made none: half of PCIe 5.0 x16."""
_UNUSED_DISK_BYTES_PER_S: Final = 1e9


@dataclass(slots=True)
class EngineTurns:
    """Collects the turns of a running engine.

    An engine tells the last few turns of each session, so a longer watch knows more of them.

    Attributes:
        url: Address of the server, without a path.
        token: Bearer token of its control routes.
        states: What it told last.
        turns: Turns by engine, session and number.
    """

    url: str
    token: str
    states: list[SeenState] = field(default_factory=list)
    turns: dict[tuple[int, int, int], SeenMiss] = field(default_factory=dict)

    def watch(
        self,
        observed_s: float,
        on_look: Callable[[int], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the engine once, or again and again. Mutates.

        Args:
            observed_s: For how long (s); 0 for one look.
            on_look: Called with the number of turns after each look.
            sleep: Waits (s).
            clock: Time (s).

        Raises:
            EndpointError: The engine cannot be read.
        """
        ends_s = clock() + observed_s
        while True:
            self.take(read_states(self.url, self.token))
            on_look(len(self.turns))
            left_s = ends_s - clock()
            if left_s <= 0:
                return
            sleep(min(_LOOK_S, left_s))

    def take(self, states: list[SeenState]) -> None:
        """Take in what an engine told. Mutates."""
        self.states = states
        for state in states:
            for session in state.sessions:
                for turn in session.last_misses:
                    self.turns[state.engine.engine, session.number, turn.turn] = turn

    @property
    def engine(self) -> SeenEngine:
        """The first data-parallel engine; the others are alike.

        Raises:
            ConfigError: None answered, or it knows no costs yet.
        """
        engines = [state.engine for state in self.states if state.engine.costs is not None]
        if not engines or not engines[0].cache_tokens:
            raise ConfigError(
                f"{self.url} has not told what its work takes: it has computed no prompt yet, or "
                "is older than this command",
                hint="send it some turns, or plan from its decision log with --profile",
            )
        return engines[0]

    @property
    def num_data_parallel(self) -> int:
        """Data-parallel engines of the server (count)."""
        return len(self.states)

    def sample(self) -> TurnSample:
        """Its turns. Pure."""
        meter = TurnSampleMeter()
        rows: dict[tuple[int, int], list[tuple[int, int, int, float]]] = {}
        heads: dict[tuple[int, int], int] = {}
        for (engine, number, turn), seen in sorted(self.turns.items()):
            kept = _repeated_tokens(seen)
            if turn == 1:
                heads[engine, number] = kept
                kept = 0
            row = seen.prompt_tokens, kept, seen.output_tokens, seen.gap_s
            rows.setdefault((engine, number), []).append(row)
        for session, turns in rows.items():
            meter.add_turns(turns, heads.get(session, 0))
        return meter.result()

    def observed(self, observed_s: float) -> ObservedEngine:
        """What it was seen to do. Pure."""
        turns = self.turns.values()
        prompt_tokens = sum(turn.prompt_tokens for turn in turns)
        return ObservedEngine(
            url=self.url,
            policy=self.engine.policy,
            num_live=_num_live(self.states),
            num_turns=len(turns),
            observed_s=observed_s,
            hit_ratio=ratio(sum(turn.cached_tokens for turn in turns), prompt_tokens),
            possible_hit_ratio=ratio(sum(map(_repeated_tokens, turns)), prompt_tokens),
        )


def measured_profile(url: str, engine: SeenEngine) -> CostProfile:
    """An engine's sizes and what its work takes, as a cost profile. Pure.

    It does not tell the cost of context that decodes read from that of decodes.
    """
    costs = engine.costs
    assert costs is not None, "EngineTurns.engine checks it"
    load_s = engine.host_load_s_per_token
    kv_bytes = max(round(engine.kv_bytes_per_token), 1)
    return CostProfile(
        name=urlsplit(url).netloc,
        summary="as the engine has measured",
        sources=(url,),
        kind="measured",
        block_size_tokens=max(engine.block_tokens, 1),
        kv_tokens=engine.cache_tokens,
        kv_bytes_per_token=kv_bytes,
        max_num_seqs=max(engine.max_running, 1),
        max_num_batched_tokens=max(engine.max_step_tokens, engine.max_running, 1),
        step_base_s=max(costs.step_s, _LEAST_STEP_S),
        prefill_s_per_token=costs.prefill_s_per_token,
        prefill_s_per_token_context=costs.prefill_s_per_pair,
        decode_s_per_seq=costs.decode_s,
        decode_s_per_context_token=0.0,
        host_link_bytes_per_s=kv_bytes / load_s if load_s else ASSUMED_LINK_BYTES_PER_S,
        disk_bytes_per_s=_UNUSED_DISK_BYTES_PER_S,
    )


def _repeated_tokens(turn: SeenMiss) -> int:
    """Tokens of a prompt that an infinite cache would have had."""
    lost = sum(n for reason, n in turn.missed.items() if reason in REPEATED_REASONS)
    return min(turn.cached_tokens + lost, turn.prompt_tokens)


def _num_live(states: Iterable[SeenState]) -> int:
    return sum(one.state in _LIVE for state in states for one in state.sessions)
