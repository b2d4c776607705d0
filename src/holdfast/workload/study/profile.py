"""How agents of one kind behave, turn by turn: what the generator is fitted to.

Marginals are tables of percentiles. What depends on what is said on two levels: what each session
has as a whole, in ranks, and what turns have beyond that, as correlations of scores.
"""

from __future__ import annotations

import msgspec

from holdfast.traces.record import EndedBy
from holdfast.workload.study.distribution import Distribution
from holdfast.workload.study.prefixes import Head

__all__ = ["QUANTITIES", "TRAITS", "Profile", "RewriteProfile", "SessionTraits", "StepProfile"]

QUANTITIES = ("gap_s", "output_tokens", "added_tokens")
"""What a turn draws; the order of everything that has one entry for each."""

TRAITS = ("num_turns", "first_prompt_tokens", "human_share", "rewrite_share", "call_share")
"""What a session draws."""


class SessionTraits(msgspec.Struct, frozen=True, array_like=True):
    """What one session has as a whole; in JSON an array, in this order.

    Attributes:
        num_turns: Its rank among all sessions, from 0; equal ones have ranks of their own.
        first_prompt_tokens: The same.
        human_share: The same.
        rewrite_share: The same.
        call_share: The same.
        gap_s: Its level: the mean score of its turns within their steps, chance taken off.
        output_tokens: The same.
        added_tokens: The same.
        ends_full: Whether it ended where contexts are full: at a size at which at least a tenth of
            all that reach it are compacted.
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
        ended_by: What their answers asked for.
        tool: Name of the tool, the most frequent where several share the step; "" for none.
        command: As `Turn.tool_command`; "" for none.
        num_turns: How many.
        gap_s: How long the session was away then.
        output_tokens: The answers.
        added_tokens: What the next prompt has beyond this one, where it extends it but for a tail;
            of early turns only where there are no others.
        user_share: Those that the user went on from, of all that were gone on from (0 to 1).
        num_rewrites: Those whose next prompt leaves this one, by kind, compactions left out.
        num_called: Sub-agents that each of those which called any did.
        next: How often each step followed; `end` where the session ended.
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
    """Prompts that leave the last one in the same way; as `Mutation.kind` has it.

    Attributes:
        kept_tokens: What is still shared with the last prompt.
        lost_tokens: What the last prompt has behind that, in full blocks.
        size_ratio: The new prompt relative to the last one.
        added_tokens: What the new one has more; negative where it is shorter.
        turns_back: Turns between the prompt that is extended and the new one; for returns only.
    """

    kept_tokens: Distribution
    lost_tokens: Distribution
    size_ratio: Distribution
    added_tokens: Distribution
    turns_back: Distribution


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Agents of one kind.

    Attributes:
        num_sessions: How many.
        block_tokens: Tokens in a block, of most of them.
        num_by_agent: Sessions by name or type of the agent.
        num_turns: Of each session.
        first_prompt_tokens: Of each session.
        head_tokens: As `Prefixes.head_tokens`, among agents of this kind.
        heads: First prompts among them that share more than 4,096 tokens, or all they share with
            anybody.
        first: How often a session began with each step.
        steps: By tool and head of its command; calls of which there are under 20 by kind of tool.
        human_share: Of each session's waits, those for a human (0 to 1).
        rewrite_share: Of each session's waits, those followed by a return or a branch (0 to 1).
        call_share: Of each session's turns, those that call sub-agents (0 to 1).
        rewrites: By kind.
        num_growth_phases_by_size: Growth phases that reached each size, without those that ended
            full with their session: an entry for each 16,384 tokens, from 0.
        num_compactions_by_size: Compactions, by the size of the prompt before.
        full_tokens: Largest prompt since the last compaction, of sessions that ended full.
        sessions: Each of them; of more than 1,000 as many, evenly by number of turns.
        session_shares: Of the variance of scores within a step, for each of `QUANTITIES`: what lies
            between sessions.
        next_correlations: Of what scores are beyond their session's level with the same of the next
            turn, for each of `QUANTITIES`.
        turn_correlations: Of the same in one turn, for each pair of `QUANTITIES`.
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
