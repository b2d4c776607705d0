"""Measures profiles of agents from their sessions."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.traces.record import Turn
from holdfast.workload.study.distribution import distribution_of
from holdfast.workload.study.mutations import Mutation, mutation_of
from holdfast.workload.study.prefixes import PrefixMeter
from holdfast.workload.study.profile import TRAITS, Profile, RewriteProfile, SessionTraits
from holdfast.workload.study.prompt_growth import PromptGrowthMeter
from holdfast.workload.study.scores import (
    Numbers,
    correlations,
    next_correlation,
    session_levels,
    session_share,
)
from holdfast.workload.study.steps import SteppedSession
from holdfast.workload.study.turn_table import TurnRow, TurnTable
from holdfast.workload.study.wait import wait_kind

__all__ = ["ProfileMeter", "ProfilesMeter", "shrunk_shares"]

_LOOK_BACK_TURNS = 64
# More would add no information and enlarge the study's file.
_MAX_SESSIONS = 1000
# Versions of a system message share its opening and little else.
_HEAD_TOKENS = 4096


class ProfilesMeter:
    """Accumulates families of sessions, main agents apart from sub-agents."""

    def __init__(self) -> None:
        self._meters: defaultdict[str, ProfileMeter] = defaultdict(ProfileMeter)

    def add(self, family: tuple[SteppedSession, ...]) -> None:
        """Add a family, its main agent first."""
        num_called = Counter((session.parent, session.parent_turn) for session in family)
        for session in family:
            called = [num_called[session.index, index] for index in range(len(session.steps))]
            kind = "main" if session.parent is None else "sub_agent"
            self._meters[kind].add(session, called)

    def result(self) -> dict[str, Profile]:
        """The profiles of `main` agents and `sub_agent`s, for those with sessions."""
        return {kind: meter.result() for kind, meter in sorted(self._meters.items())}


class ProfileMeter:
    """Accumulates sessions of one kind of agent."""

    def __init__(self) -> None:
        self._turns = TurnTable()
        self._prefixes = PrefixMeter(_HEAD_TOKENS)
        self._agents: Counter[str] = Counter()
        self._block_tokens: Counter[int] = Counter()
        self._growth = PromptGrowthMeter()
        self._rewrites: defaultdict[str, defaultdict[str, array[float]]] = defaultdict(
            lambda: defaultdict(lambda: array("d"))
        )
        self._num_turns = array("d")
        self._first_prompt = array("d")
        self._num_for_human = array("d")
        self._num_rewritten = array("d")
        self._num_calling = array("d")

    def add(self, session: SteppedSession, num_called: Sequence[int]) -> None:
        """Add a session, with the number of sub-agents that each of its turns called."""
        self._agents[session.agent] += 1
        self._block_tokens[session.block_tokens] += 1
        self._prefixes.add(session)
        turns = [step.turn for step in session.steps]
        changes = [mutation_of(session, index) for index in range(1, len(turns))]
        for index, turn in enumerate(turns):
            following = turns[index + 1] if index + 1 < len(turns) else None
            change = changes[index] if following is not None else None
            kind = "" if change is None else change.kind
            row = TurnRow(session.index, index, turn, following, kind, num_called[index])
            self._turns.add(row)
        self._add_traits(turns, changes)
        self._num_calling.append(sum(num > 0 for num in num_called))
        self._growth.add(turns, changes)
        self._add_rewrites(session, changes)

    def _add_traits(self, turns: list[Turn], changes: list[Mutation | None]) -> None:
        self._num_turns.append(len(turns))
        self._first_prompt.append(turns[0].prompt_tokens)
        self._num_for_human.append(sum(wait_kind(turn) == "human" for turn in turns[:-1]))
        kinds = [change.kind for change in changes if change is not None]
        self._num_rewritten.append(kinds.count("return") + kinds.count("branch"))

    def _add_rewrites(self, session: SteppedSession, changes: list[Mutation | None]) -> None:
        for index, change in enumerate(changes, start=1):
            if change is None:
                continue
            before, turn = session.steps[index - 1].turn, session.steps[index].turn
            values = self._rewrites[change.kind]
            values["kept"].append(change.depth_tokens)
            values["lost"].append(change.lost_tokens)
            values["size"].append(turn.prompt_tokens / max(1, before.prompt_tokens))
            values["added"].append(turn.prompt_tokens - before.prompt_tokens)
        returns = [index for index, each in enumerate(changes, 1) if each and each.kind == "return"]
        if returns:
            self._rewrites["return"]["back"].extend(_turns_back(session, returns))

    def result(self) -> Profile:
        """The profile of the sessions added so far."""
        prefixes = self._prefixes.result()
        scores = self._turns.scores()
        sessions = self._turns.sessions
        session_shares = [session_share(each, sessions) for each in scores]
        left = [1.0 - share for share in session_shares]
        levels = [session_levels(each, sessions) for each in scores]
        own = [each - level[sessions] for each, level in zip(scores, levels, strict=True)]
        traits = self._traits()
        return Profile(
            num_sessions=self._agents.total(),
            block_tokens=self._block_tokens.most_common(1)[0][0],
            num_by_agent=dict(self._agents.most_common()),
            num_turns=distribution_of(self._num_turns),
            first_prompt_tokens=distribution_of(self._first_prompt),
            head_tokens=prefixes.head_tokens,
            heads=prefixes.heads,
            first=self._turns.first_steps(),
            steps=self._turns.steps(),
            early_added_tokens=self._turns.early_added_tokens(),
            human_share=distribution_of(traits["human_share"]),
            rewrite_share=distribution_of(traits["rewrite_share"]),
            call_share=distribution_of(traits["call_share"]),
            rewrites={kind: _rewrite(values) for kind, values in sorted(self._rewrites.items())},
            num_growth_phases_by_size=self._growth.num_growth_phases,
            num_compactions_by_size=self._growth.num_compactions,
            full_tokens=self._growth.full_tokens,
            sessions=_sessions(traits, levels, self._growth.has_ended_full),
            session_shares=tuple(session_shares),
            next_correlations=tuple(
                next_correlation(each, sessions, variance)
                for each, variance in zip(own, left, strict=True)
            ),
            turn_correlations=correlations(own, left),
        )

    def _traits(self) -> dict[str, Numbers]:
        """The traits of each session, by the names of `TRAITS`."""
        num_turns = np.asarray(self._num_turns)
        return {
            "num_turns": num_turns,
            "first_prompt_tokens": np.asarray(self._first_prompt),
            "human_share": shrunk_shares(np.asarray(self._num_for_human), num_turns - 1),
            "rewrite_share": shrunk_shares(np.asarray(self._num_rewritten), num_turns - 1),
            "call_share": shrunk_shares(np.asarray(self._num_calling), num_turns),
        }


def shrunk_shares(num_chosen: Numbers, num_all: Numbers) -> Numbers:
    """Estimate each session's share of waits of one kind by shrinkage. Pure.

    Beta-binomial shrinkage by the method of moments: the shrunk shares vary as much as the
    observed ones less their binomial noise.

    Args:
        num_chosen: Waits of the kind in each session.
        num_all: All waits of each session, >= 0.
    """
    total = float(num_all.sum())
    overall = float(num_chosen.sum()) / total if total else 0.0
    noise = overall * (1 - overall)
    is_some = num_all > 0
    num_sessions = int(is_some.sum())
    if noise == 0.0 or num_sessions < 2:
        return np.full(num_all.shape, overall)
    own = num_chosen[is_some] / num_all[is_some]
    spread = float(num_all[is_some] @ (own - overall) ** 2) - noise * (num_sessions - 1)
    variance = spread / (total - float((num_all**2).sum()) / total)
    # At `noise`, the variance of shares that are all 0 or 1, nothing shrinks.
    variance = min(max(variance, 1e-9), noise)
    num_imagined = noise / variance - 1
    weight = num_all + num_imagined
    shares = np.full(num_all.shape, overall)
    np.divide(num_chosen + num_imagined * overall, weight, out=shares, where=weight > 0)
    return shares


def _sessions(
    traits: Mapping[str, Numbers], levels: list[Numbers], has_ended_full: NDArray[np.bool_]
) -> tuple[SessionTraits, ...]:
    """The traits of each session, or of an even selection of them."""
    num_turns = traits["num_turns"]
    num_chosen = min(_MAX_SESSIONS, len(num_turns))
    ranks = np.linspace(0, len(num_turns) - 1, num_chosen).round().astype(np.int64)
    chosen = np.sort(np.argsort(num_turns, kind="stable")[ranks])
    orders = [np.argsort(traits[name][chosen], kind="stable") for name in TRAITS]
    columns = [
        *(np.argsort(order).tolist() for order in orders),
        *(level[chosen].tolist() for level in levels),
        has_ended_full[chosen].tolist(),
    ]
    return tuple(SessionTraits(*row) for row in zip(*columns, strict=True))


def _turns_back(session: SteppedSession, returns: list[int]) -> Iterator[int]:
    """Yield for each return the turns since the latest prompt with the longest match."""
    paths = list(session.paths())
    for index in returns:
        num_own = session.steps[index].num_own
        for distance in range(2, min(index, _LOOK_BACK_TURNS) + 1):
            earlier = paths[index - distance]
            if len(earlier) >= num_own and earlier[num_own - 1] == paths[index][num_own - 1]:
                yield distance
                break


def _rewrite(values: Mapping[str, array[float]]) -> RewriteProfile:
    return RewriteProfile(
        kept_tokens=distribution_of(values["kept"]),
        lost_tokens=distribution_of(values["lost"]),
        size_ratio=distribution_of(values["size"]),
        added_tokens=distribution_of(values["added"]),
        turns_back=distribution_of(values.get("back", ())),
    )
