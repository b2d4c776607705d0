"""Naive computations of a study's figures, and sessions to compare them on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from hypothesis import strategies as st

from holdfast.traces.record import Session, Turn
from holdfast.workload.study.load import Load, LoadMeter
from holdfast.workload.study.overlay import Overlay, ServiceTime
from holdfast.workload.study.sampling import BlockSampler
from holdfast.workload.study.steps import Stepper

__all__ = [
    "BLOCK_TOKENS",
    "load_of",
    "lru_hit_tokens",
    "meter_of",
    "prompts_of",
    "session_of",
    "sessions_like_agents",
    "shared_blocks",
]

BLOCK_TOKENS = 10


def meter_of(
    sessions: Sequence[Session], concurrency: int, sampler: BlockSampler | None = None
) -> LoadMeter:
    """A meter that has measured sessions on an engine without service times."""
    stepper = Stepper()
    overlay = Overlay(concurrency, ServiceTime(0.0, 0.0))
    meter = LoadMeter(overlay, sampler or BlockSampler())
    for session in sessions:
        meter.add([stepper.follow(session)])
    return meter


def load_of(
    sessions: Sequence[Session], concurrency: int, sampler: BlockSampler | None = None
) -> Load:
    """The load that `meter_of` measured."""
    return meter_of(sessions, concurrency, sampler).finish(concurrency)


def lru_hit_tokens(prompts: Sequence[Sequence[int]], cache_blocks: int) -> int:
    """Tokens hit by a plain LRU cache that makes the root the most recent block."""
    cache: OrderedDict[int, None] = OrderedDict()
    num_hit = 0
    for prompt in prompts:
        num_hit += sum(block in cache for block in prompt)
        for block in reversed(prompt):
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > cache_blocks:
                cache.popitem(last=False)
    return num_hit * BLOCK_TOKENS


def shared_blocks(left: Sequence[int], right: Sequence[int]) -> int:
    """Leading blocks that two prompts share."""
    return next(
        (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )


def session_of(
    name: str, *turns: Turn, parent: str | None = None, at: int | None = None
) -> Session:
    """A session with blocks of `BLOCK_TOKENS`."""
    return Session(name, BLOCK_TOKENS, turns, "test", parent_id=parent, parent_turn=at)


def prompts_of(sessions: Sequence[Session]) -> list[tuple[int, ...]]:
    """All prompts, session by session."""
    return [turn.block_ids for session in sessions for turn in session.turns]


@st.composite
def sessions_like_agents(draw: st.DrawFn, max_sessions: int = 5) -> list[Session]:
    """Sessions that append, return, drop their end and share heads; ids like hashes."""
    ids: dict[tuple[int, ...], int] = {}

    def block_ids(path: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            ids.setdefault(tuple(path[: depth + 1]), 7919 * (len(ids) + 1))
            for depth in range(len(path))
        )

    sessions = []
    for number in range(draw(st.integers(1, max_sessions))):
        path: list[int] = []
        turns = []
        for _ in range(draw(st.integers(1, 6))):
            kept = draw(st.integers(0, len(path)))
            path = path[:kept] + draw(st.lists(st.integers(0, 1), max_size=5))
            turns.append(
                Turn(
                    gap_s=draw(st.sampled_from([0.0, 0.5, 3.0, 70.0])),
                    prompt_tokens=len(path) * BLOCK_TOKENS + draw(st.integers(0, 9)),
                    output_tokens=draw(st.integers(0, 30)),
                    block_ids=block_ids(path),
                    ended_by=draw(st.sampled_from(["tool", "human", "unknown"])),
                    tool_name=draw(st.sampled_from([None, "Bash", "Read"])),
                )
            )
        sessions.append(session_of(f"s{number}", *turns))
    return sessions
