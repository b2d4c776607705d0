"""Fits generator parameters to the agent profiles of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from holdfast.errors import ConfigError
from holdfast.workload.generator.parameters import (
    MAIN,
    SCHEMA,
    Agent,
    Calls,
    Dependence,
    Head,
    Parameters,
    Rewrite,
    Role,
    Step,
    Table,
)
from holdfast.workload.study.distribution import PERCENTS, Distribution
from holdfast.workload.study.mutations import MutationKind
from holdfast.workload.study.prefixes import Head as StudiedHead
from holdfast.workload.study.profile import QUANTITIES, Profile, RewriteProfile, StepProfile

__all__ = ["fitted"]

_SUB_AGENT: Final = "sub_agent"
_DIGITS = 4
_MIN_LABELLED = 5


def fitted(profiles: Mapping[str, Profile], about: str) -> Parameters:
    """Fit parameters to the profiles of a study; pure.

    Args:
        profiles: `Study.profiles`.
        about: Description of the set.

    Raises:
        ConfigError: There is no profile of main agents.
    """
    if MAIN not in profiles:
        raise ConfigError("the study has no main agents; expected at least one")
    return Parameters(
        schema=SCHEMA,
        about=about,
        percents=PERCENTS,
        block_size_tokens=profiles[MAIN].block_tokens,
        agents={name: _agent(profile, profiles) for name, profile in profiles.items()},
    )


def _agent(profile: Profile, profiles: Mapping[str, Profile]) -> Agent:
    role = Role(
        prompt_tokens=_table(profile.first_prompt_tokens),
        head_tokens=_table(profile.head_tokens),
        heads=_heads(profile.heads),
    )
    rewrites = {
        cast(MutationKind, kind): _rewrite(kind, each) for kind, each in profile.rewrites.items()
    }
    return Agent(
        labels=_labels(profile.num_by_agent),
        num_turns=_table(profile.num_turns),
        roles={"": role},
        steps={
            name: _step(step, can_call=_SUB_AGENT in profiles)
            for name, step in profile.steps.items()
        },
        first=_weights(profile.first),
        rewrites=rewrites,
        early_added_tokens=_table(profile.early_added_tokens),
        compaction_chances=_compaction_chances(profile) if "compaction" in rewrites else (),
        full_tokens=_table(profile.full_tokens),
        dependence=_dependence(profile),
    )


def _step(step: StepProfile, *, can_call: bool) -> Step:
    num_waits = step.num_turns - step.next.get("end", 0)
    calls = None
    if can_call and step.num_called.num_values:
        calls = Calls(
            agent=_SUB_AGENT,
            num=_table(step.num_called),
            share=_share(step.num_called.num_values, step.num_turns),
            is_joined=False,
        )
    return Step(
        next=_weights(step.next),
        ended_by=step.ended_by,
        tool=step.tool,
        command=step.command,
        gap_s=_table(step.gap_s),
        output_tokens=_table(step.output_tokens),
        added_tokens=_table(step.added_tokens),
        user_share=_rounded(step.user_share),
        rewrites={
            cast(MutationKind, kind): _share(num, num_waits)
            for kind, num in step.num_rewrites.items()
        },
        calls=calls,
    )


def _heads(heads: tuple[StudiedHead, ...]) -> tuple[Head, ...]:
    """The heads of several sessions, and one for all sessions that share none."""
    shared = tuple(
        Head(
            weight=head.num_sessions,
            min_tokens=head.shared_by_all_tokens,
            max_tokens=head.shared_by_two_tokens,
        )
        for head in heads
        if head.num_sessions > 1
    )
    num_alone = sum(head.num_sessions == 1 for head in heads)
    return (*shared, Head(weight=num_alone, max_tokens=0.0)) if num_alone else shared


def _rewrite(kind: str, profile: RewriteProfile) -> Rewrite:
    if kind == "tail":
        return Rewrite(kept_tokens=_table(profile.lost_tokens))
    kept_tokens = _table(profile.kept_tokens)
    if kind == "compaction":
        return Rewrite(kept_tokens=kept_tokens, size_ratio=_table(profile.size_ratio))
    # Absolute amounts, not ratios: short prompts grow by a large factor and long ones do not.
    turns_back = _table(profile.turns_back, default=2.0)
    added_tokens = _table(profile.added_tokens)
    return Rewrite(kept_tokens=kept_tokens, added_tokens=added_tokens, turns_back=turns_back)


def _compaction_chances(profile: Profile) -> tuple[float, ...]:
    nums = zip(profile.num_compactions_by_size, profile.num_growth_phases_by_size, strict=True)
    return tuple(_share(compacted, reached) for compacted, reached in nums)


def _dependence(profile: Profile) -> Dependence:
    return Dependence(
        human_share=_table(profile.human_share),
        rewrite_share=_table(profile.rewrite_share),
        call_share=_table(profile.call_share),
        sessions=tuple(
            msgspec.structs.replace(
                session, **{name: _rounded(getattr(session, name)) for name in QUANTITIES}
            )
            for session in profile.sessions
        ),
        session_shares=tuple(map(_rounded, profile.session_shares)),
        next_correlations=tuple(map(_rounded, profile.next_correlations)),
        turn_correlations=tuple(tuple(map(_rounded, row)) for row in profile.turn_correlations),
    )


def _labels(num_by_agent: Mapping[str, int]) -> dict[str, float]:
    """Types of agents; rare ones, whose names may be private, become ""."""
    labels: Counter[str] = Counter()
    for label, num in num_by_agent.items():
        labels[label if num >= _MIN_LABELLED else ""] += num
    return _weights(labels)


def _weights(counts: Mapping[str, int]) -> dict[str, float]:
    return {name: float(num) for name, num in counts.items()}


def _table(distribution: Distribution, default: float = 0.0) -> Table:
    if not distribution.percentiles:
        return default
    rounded = tuple(map(_rounded, distribution.percentiles))
    return rounded[0] if rounded[0] == rounded[-1] else rounded


def _share(num: int, num_all: int) -> float:
    """`num / num_all`; 0 without any."""
    return _rounded(num / num_all) if num_all > 0 else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
