"""The parameters of generated sessions.

An agent is a Markov chain of steps. A step is a turn that ends in a certain call; it has tables for
the answer's length, the gap and the added tokens, and weights of the next step. Several roles may
take turns in a session, each with a prompt of its own. A step may call sub-agents, which are
sessions of their own.
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
"""The agent of every family's main session."""

Table = float | tuple[float, ...]
"""A constant, or the value at each of `Parameters.percents`."""

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Weight = Annotated[float, msgspec.Meta(ge=0)]
_Correlation = Annotated[float, msgspec.Meta(ge=-1, le=1)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all parts of a set; refuses unknown fields."""


class Head(_Part, frozen=True, kw_only=True):
    """A prefix that sessions share; each session uses a part of it, from its start.

    Attributes:
        weight: Weight among the role's heads.
        min_tokens: Tokens that all of its sessions share.
        max_tokens: Most tokens that any of them share.
    """

    weight: _Weight = 1.0
    min_tokens: _Weight = 0.0
    max_tokens: _Weight = float("inf")


class Role(_Part, frozen=True, kw_only=True):
    """A participant of a session with prompts of its own.

    Attributes:
        prompt_tokens: Its prompt before the conversation, the head included.
        head_tokens: Part of that prompt that sessions share.
        heads: The heads that sessions share.
        keeps_history: Whether its prompts hold the whole conversation; otherwise only the last
            turn's tokens.
    """

    prompt_tokens: Table
    head_tokens: Table = 0.0
    heads: tuple[Head, ...] = (Head(),)
    keeps_history: bool = True


class Calls(_Part, frozen=True, kw_only=True):
    """Parallel sub-agents that a turn calls.

    Attributes:
        agent: Their agent.
        num: Number of sub-agents.
        share: Share of the step's turns that call any.
        shares_prompt: Whether they start with the caller's prompt instead of a head of their own.
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
        next: Weights of the next step; `end` ends the session if the agent has no `num_turns`.
        role: The role that takes the turn.
        ended_by: As `Turn.ended_by`.
        tool: As `Turn.tool_name`; "" for none.
        command: As `Turn.tool_command`; "" for none.
        gap_s: Gap after the turn.
        output_tokens: Length of the answer.
        added_tokens: Tokens that this turn adds to later prompts, the answer included.
        user_share: Share of next turns that the user triggers; None derives it from `ended_by`.
        rewrites: Chances that the next prompt is rewritten, by kind.
        calls: Sub-agents that the step calls.
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
    """Size of a rewritten prompt relative to the last one.

    Attributes:
        kept_tokens: Tokens it shares with the last prompt; for a `tail`, tokens it drops.
        size_ratio: Its size relative to the last prompt's.
        added_tokens: Tokens on top of that size.
        turns_back: For a return, turns between the prompt it extends and itself, >= 2.
    """

    kept_tokens: Table = 0.0
    size_ratio: Table = 1.0
    added_tokens: Table = 0.0
    turns_back: Table = 2.0


class Dependence(_Part, frozen=True, kw_only=True):
    """Dependence between values; all as in the study's `Profile`.

    Attributes:
        human_share: Share of each session's waits that are for a human.
        rewrite_share: Share of each session's waits that a return or a branch follows.
        call_share: Share of each session's turns that call sub-agents.
        sessions: Traits of recorded sessions; each generated session copies one of them.
        session_shares: Share of each quantity's variance that lies between sessions.
        next_correlations: Correlation of each quantity, less its session's level, with its next
            value.
        turn_correlations: Correlation of each pair of quantities, less those levels, in one turn.
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
                raise ValueError(f"`sessions` needs each rank from 0 exactly once for `{name}`")
        for name in QUANTITIES:
            if not all(math.isfinite(getattr(each, name)) for each in self.sessions):
                raise ValueError(f"`sessions` needs a finite level of `{name}`")


class Agent(_Part, frozen=True, kw_only=True):
    """One kind of agent.

    Attributes:
        labels: Weights of `Session.agent`; the agent's own name if empty.
        num_turns: Turns of a session; None continues until `end` follows a step.
        task_tokens: Tokens of the task before the first turn.
        roles: Roles by name.
        steps: Steps by name.
        first: Weights of the first step.
        rewrites: Rewrites by kind.
        early_added_tokens: Tokens that each of the first four turns adds; None uses the step's.
        compaction_chances: Chance that a prompt which reaches a size is compacted there: an entry
            for each 16,384 tokens, from 0; 1 after the last. Empty for never. At a chance of 0.1 or
            more the context counts as full: the session's later compactions have the same limit.
        full_tokens: Context size of a session that ends with its context full.
        dependence: None draws all values independently.
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
        """Whether a drawn compaction limit is the size of a full context. Pure."""
        size_bin = int(limit_tokens // SIZE_BIN_TOKENS)
        chances = self.compaction_chances
        return size_bin >= len(chances) or chances[size_bin] >= FULL_SHARE

    def limit_tokens(self, share: float) -> float:
        """The size below which a share (>= 0, < 1) of growing prompts is compacted. Pure."""
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
    """A complete parameter set.

    Attributes:
        schema: `holdfast.generator/1`.
        about: Description of the set and of the source of its numbers.
        percents: The percentile of each table entry, ascending from 0 to 100.
        block_size_tokens: Tokens in a block.
        answer_s_per_token: Assumed time per answer token of sub-agents that a caller waits for.
        agents: Agents by name; every family starts with `main`.
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
