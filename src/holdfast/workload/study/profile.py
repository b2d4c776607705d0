"""Profiles of agents' turn-by-turn behaviour, the input of the generator's fit.

Marginal distributions are tables of percentiles. Dependence has two levels: traits of whole
sessions as ranks, and correlations of the turns' scores beyond their session's levels.
"""

from __future__ import annotations

import msgspec

from holdfast.traces.record import EndedBy
from holdfast.workload.study.distribution import Distribution
from holdfast.workload.study.prefixes import Head

__all__ = ["QUANTITIES", "TRAITS", "Profile", "RewriteProfile", "SessionTraits", "StepProfile"]

QUANTITIES = ("gap_s", "output_tokens", "added_tokens")
"""Quantities of a turn; the order of all values that have one entry for each."""

TRAITS = ("num_turns", "first_prompt_tokens", "human_share", "rewrite_share", "call_share")
"""Traits of a session."""


class SessionTraits(msgspec.Struct, frozen=True, array_like=True):
    """Traits of one session; in JSON an array, in this order.

    Attributes:
        num_turns: Rank among all sessions, from 0; equal values have different ranks.
        first_prompt_tokens: Rank, as above.
        human_share: Rank, as above.
        rewrite_share: Rank, as above.
        call_share: Rank, as above.
        gap_s: Level: mean score of the session's turns within their steps, corrected for chance.
        output_tokens: Level, as above.
        added_tokens: Level, as above.
        ends_full: Whether its context was full at its end: at a size at which at least a tenth of
            all sessions that reach it are compacted.
    """

    num_turns: int
    first_prompt_tokens: int
    human_share: int
    rewrite_share: int
    call_share: int
    gap_s: float
    output_tokens: float
    added_tokens: float
    ends_full: bool


class StepProfile(msgspec.Struct, frozen=True):
    """Turns that end in the same call.

    Attributes:
        ended_by: As `Turn.ended_by`.
        tool: Name of the tool, the most frequent if several share the step; "" for none.
        command: As `Turn.tool_command`; "" for none.
        num_turns: Number of turns.
        gap_s: Gaps after the turns.
        output_tokens: Lengths of the answers.
        added_tokens: Tokens that the next prompt adds, if it extends this one or replaces its tail;
            of early turns only if there are no others.
        user_share: Share of next turns that the user triggered (0 to 1).
        num_rewrites: Turns whose next prompt is rewritten, by kind, without compactions.
        num_called: Sub-agents of each turn that called any.
        next: Counts of the next step; `end` at the session's end.
    """

    ended_by: EndedBy
    tool: str
    command: str
    num_turns: int
    gap_s: Distribution
    output_tokens: Distribution
    added_tokens: Distribution
    user_share: float
    num_rewrites: dict[str, int]
    num_called: Distribution
    next: dict[str, int]


class RewriteProfile(msgspec.Struct, frozen=True):
    """Rewritten prompts of one `Mutation.kind`.

    Attributes:
        kept_tokens: Tokens shared with the last prompt.
        lost_tokens: Tokens of the last prompt after those, in full blocks.
        size_ratio: The new prompt's length relative to the last one's.
        added_tokens: Difference of the two lengths; negative if the new prompt is shorter.
        turns_back: Turns between the extended prompt and the new one; for returns only.
    """

    kept_tokens: Distribution
    lost_tokens: Distribution
    size_ratio: Distribution
    added_tokens: Distribution
    turns_back: Distribution


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of one kind of agent.

    Attributes:
        num_sessions: Number of sessions.
        block_tokens: Tokens in a block, in most sessions.
        num_by_agent: Sessions by name or type of the agent.
        num_turns: Turns of each session.
        first_prompt_tokens: First prompt of each session.
        head_tokens: As `Prefixes.head_tokens`, among agents of this kind.
        heads: Groups of first prompts that share more than 4,096 tokens, or all that they share
            with any other.
        first: Counts of sessions' first steps.
        steps: Steps by tool and head of its command; calls with fewer than 20 turns by tool kind.
        human_share: Share of each session's waits that are for a human (0 to 1).
        rewrite_share: Share of each session's waits that a return or a branch follows (0 to 1).
        call_share: Share of each session's turns that call sub-agents (0 to 1).
        rewrites: Rewritten prompts by kind.
        num_growth_phases_by_size: Growth phases that reached each size, without those that ended
            full with their session: an entry for each 16,384 tokens, from 0.
        num_compactions_by_size: Compactions by the size of the prompt before.
        full_tokens: Largest prompt since the last compaction, of sessions that ended full.
        sessions: Traits of each session; at most 1,000, spread evenly over the number of turns.
        session_shares: Share of the variance of scores within a step that lies between sessions,
            for each of `QUANTITIES`.
        next_correlations: Correlation of scores, less their session's level, with those of the
            next turn, for each of `QUANTITIES`.
        turn_correlations: Correlation of such scores in one turn, for each pair of `QUANTITIES`.
    """

    num_sessions: int
    block_tokens: int
    num_by_agent: dict[str, int]
    num_turns: Distribution
    first_prompt_tokens: Distribution
    head_tokens: Distribution
    heads: tuple[Head, ...]
    first: dict[str, int]
    steps: dict[str, StepProfile]
    early_added_tokens: Distribution
    human_share: Distribution
    rewrite_share: Distribution
    call_share: Distribution
    rewrites: dict[str, RewriteProfile]
    num_growth_phases_by_size: tuple[int, ...] = msgspec.field(name="num_climbs_by_size")
    num_compactions_by_size: tuple[int, ...]
    full_tokens: Distribution
    sessions: tuple[SessionTraits, ...]
    session_shares: tuple[float, ...]
    next_correlations: tuple[float, ...]
    turn_correlations: tuple[tuple[float, ...], ...]
