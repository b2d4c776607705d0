"""What sessions are drawn from: a few numbers for each thing an agent does.

An agent walks from step to step. A step is a turn that ends in a certain call: it says how long the
answer is, how long the session is then away, what that adds to the next prompt, and what follows.
Several roles may take turns in a session, each with a prompt of its own; a step may call
sub-agents, which are sessions of their own.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec

from holdfast.traces.record import EndedBy
from holdfast.workload.study.mutations import MutationKind
from holdfast.workload.study.profile import QUANTITIES, TRAITS, SessionTraits
from holdfast.workload.study.prompt_growth import FULL_SHARE
from holdfast.workload.study.shape import SIZE_BIN_TOKENS

__all__ = [
    "MAIN",
    "SCHEMA",
    "Agent",
    "Calls",
    "Dependence",
    "Head",
    "Parameters",
    "Rewrite",
    "Role",
    "Step",
    "Table",
]

SCHEMA: Final = "holdfast.generator/1"
MAIN = "main"
"""The agent that every family begins with."""

Table = float | tuple[float, ...]
"""A constant, or the value at each of `Parameters.percents`."""

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Weight = Annotated[float, msgspec.Meta(ge=0)]
_Correlation = Annotated[float, msgspec.Meta(ge=-1, le=1)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a set is made of: an unknown name in it is an error."""


class Head(_Part, frozen=True, kw_only=True):
    """Sessions that begin alike: what they share lies on one line, each goes along part of it.

    Attributes:
        weight: How often, against the role's other heads.
        min_tokens: All of its sessions share so much.
        max_tokens: None share more.
    """

    weight: _Weight = 1.0
    min_tokens: _Weight = 0.0
    max_tokens: _Weight = float("inf")


class Role(_Part, frozen=True, kw_only=True):
    """Somebody who speaks in a session, with prompts of its own.

    Attributes:
        prompt_tokens: Its prompt before anything was said, the head included.
        head_tokens: Part of that which other sessions share.
        heads: Which sessions share.
        keeps_history: Whether its prompts hold all that was said in the session so far; else only
            what was said last.
    """

    prompt_tokens: Table
    head_tokens: Table = 0.0
    heads: tuple[Head, ...] = (Head(),)
    keeps_history: bool = True


class Calls(_Part, frozen=True, kw_only=True):
    """Sub-agents that a turn calls, all at once.

    Attributes:
        agent: Which.
        num: How many.
        share: Of the step's turns, those that call any.
        shares_prompt: Whether they begin with the caller's prompt instead of a head of their own.
        is_joined: Whether the caller's gap lasts at least until the last of them has ended.
    """

    agent: str
    num: Table = 1.0
    share: _Share = 1.0
    shares_prompt: bool = False
    is_joined: bool = True


class Step(_Part, frozen=True, kw_only=True):
    """A turn that ends in a certain call.

    Attributes:
        next: What follows, by weight; `end` ends the session, where the agent has no `num_turns`.
        role: Who speaks.
        ended_by: What the answer asks for.
        tool: As `Turn.tool_name`; "" for none.
        command: As `Turn.tool_command`; "" for none.
        gap_s: How long the session is away then.
        output_tokens: The answer.
        added_tokens: What this turn adds to later prompts, the answer included.
        user_share: How often the user goes on; None where `ended_by` says it.
        rewrites: How often the next prompt leaves this one, by kind.
        calls: Sub-agents.
    """

    next: dict[str, _Weight]
    role: str = ""
    ended_by: EndedBy = "tool"
    tool: str = ""
    command: str = ""
    gap_s: Table = 0.0
    output_tokens: Table
    added_tokens: Table = 0.0
    user_share: _Share | None = None
    rewrites: dict[MutationKind, _Share] = {}
    calls: Calls | None = None


class Rewrite(_Part, frozen=True, kw_only=True):
    """How a prompt leaves the last one.

    Attributes:
        kept_tokens: What it keeps of that; of a `tail`, what it does not keep.
        size_ratio: Its size relative to the last prompt's.
        added_tokens: What it has more than that.
        turns_back: For a return, turns between the prompt it extends and itself, >= 2.
    """

    kept_tokens: Table = 0.0
    size_ratio: Table = 1.0
    added_tokens: Table = 0.0
    turns_back: Table = 2.0


class Dependence(_Part, frozen=True, kw_only=True):
    """What values have to do with each other; all as in the study's `Profile`.

    Attributes:
        human_share: Of each session's waits, those for a human.
        rewrite_share: Of each session's waits, those followed by a return or a branch.
        call_share: Of each session's turns, those that call sub-agents.
        sessions: What sessions have as a whole; every session is like one of these.
        session_shares: What sessions as a whole have of the variance of each quantity.
        next_correlations: Of each quantity, beyond its session's level, with itself one turn on.
        turn_correlations: Of each pair of quantities, beyond those levels, in one turn.
    """

    human_share: Table
    rewrite_share: Table
    call_share: Table
    sessions: tuple[SessionTraits, ...]
    session_shares: tuple[_Share, ...]
    next_correlations: tuple[_Correlation, ...]
    turn_correlations: tuple[tuple[_Correlation, ...], ...]

    def __post_init__(self) -> None:
        num = len(QUANTITIES)
        _check_shape("turn_correlations", self.turn_correlations, [num] * num)
        _check_shape("session_shares", (self.session_shares,), [num])
        _check_shape("next_correlations", (self.next_correlations,), [num])
        ranks = list(range(len(self.sessions)))
        for name in TRAITS:
            if sorted(getattr(each, name) for each in self.sessions) != ranks or not ranks:
                raise ValueError(f"`sessions` needs each rank from 0 on once for `{name}`")
        for name in QUANTITIES:
            if not all(math.isfinite(getattr(each, name)) for each in self.sessions):
                raise ValueError(f"`sessions` needs a number for the level of `{name}`")


class Agent(_Part, frozen=True, kw_only=True):
    """How one kind of agent goes on.

    Attributes:
        labels: `Session.agent`, by weight; the agent's own name where there is none.
        num_turns: Turns of a session; None walks on until a step is followed by `end`.
        task_tokens: What is said before the first turn.
        roles: Who speaks.
        steps: What it does.
        first: The first step, by weight.
        rewrites: How prompts leave the last one, by kind.
        early_added_tokens: What the first four turns add, whatever their step; None where the step
            says it.
        compaction_chances: That a prompt which reaches a size is compacted there: an entry for each
            16,384 tokens, from 0; behind the last it always is. Empty for never. From 0.1 on the
            context is full there: a session that was compacted there will be so again.
        full_tokens: What the context of a session holds that ends with it full.
        dependence: None where everything is drawn independently.
    """

    labels: dict[str, _Weight] = {}
    num_turns: Table | None = None
    task_tokens: Table = 0.0
    roles: dict[str, Role]
    steps: dict[str, Step]
    first: dict[str, _Weight]
    rewrites: dict[MutationKind, Rewrite] = {}
    early_added_tokens: Table | None = None
    compaction_chances: tuple[_Share, ...] = ()
    full_tokens: Table = 0.0
    dependence: Dependence | None = None

    def is_full(self, limit_tokens: float) -> bool:
        """Whether a limit that was drawn is that of the context. Pure."""
        size_bin = int(limit_tokens // SIZE_BIN_TOKENS)
        chances = self.compaction_chances
        return size_bin >= len(chances) or chances[size_bin] >= FULL_SHARE

    def limit_tokens(self, share: float) -> float:
        """The size below which a share (0 to below 1) of growing prompts are compacted. Pure."""
        if not self.compaction_chances:
            return math.inf
        left = 1.0
        for size_bin, chance in enumerate(self.compaction_chances):
            within = left * chance
            if share < within:
                return (size_bin + share / within) * SIZE_BIN_TOKENS
            share -= within
            left -= within
        return float(len(self.compaction_chances) * SIZE_BIN_TOKENS)


class Parameters(_Part, frozen=True, kw_only=True):
    """A set of parameters, complete.

    Attributes:
        schema: `holdfast.generator/1`.
        about: What it stands for, and where its numbers are from.
        percents: Which percentile each entry of a table is, ascending from 0 to 100.
        block_size_tokens: Tokens in a block.
        answer_s_per_token: How long answers are taken to last where a caller waits for sub-agents.
        agents: By name; every family begins with `main`.
    """

    schema: Literal["holdfast.generator/1"]
    about: str
    percents: tuple[float, ...] = (0.0, 100.0)
    block_size_tokens: Annotated[int, msgspec.Meta(ge=1)] = 64
    answer_s_per_token: Annotated[float, msgspec.Meta(ge=0)] = 0.02
    agents: dict[str, Agent]


def _check_shape(name: str, rows: tuple[tuple[float, ...], ...], expected: list[int]) -> None:
    if [len(row) for row in rows] != expected:
        raise ValueError(f"`{name}` needs {len(expected)} x {expected[0]} numbers")
