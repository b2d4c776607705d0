"""Generated families: exact for constant parameters, statistical for random ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_1samp, norm, spearmanr, uniform
from tests.workload.generator.builders import (
    families_of,
    independent,
    parameters_of,
    sessions_of,
    traits,
)

from holdfast.traces.digest import sessions_digest
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.record import Session, common_prefix_length
from holdfast.traces.validation import BlockChecks, SessionLinks
from holdfast.workload.generator.files import load_set, set_names

PrefixCheck = Callable[[Iterable[Session]], None]


def step(**fields: Any) -> dict[str, Any]:
    return {"output_tokens": 5, "added_tokens": 20, "next": {"work": 1}} | fields


def agent(num_turns: Any = 3, **fields: Any) -> dict[str, Any]:
    return {
        "num_turns": num_turns,
        "roles": {"": {"prompt_tokens": 105}},
        "steps": {"work": step()},
        "first": {"work": 1},
    } | fields


class TestOneAgent:
    def test_prompts_grow_by_added_tokens(self) -> None:
        (session,) = sessions_of(parameters_of({"main": agent(4)}), 1)
        assert [turn.prompt_tokens for turn in session.turns] == [105, 125, 145, 165]
        for before, turn in pairwise(session.turns):
            assert turn.block_ids[: len(before.block_ids)] == before.block_ids

    def test_sessions_share_only_their_head(self) -> None:
        role = {"prompt_tokens": 105, "head_tokens": 45}
        first, second = sessions_of(parameters_of({"main": agent(roles={"": role})}), 2)
        ids = [session.turns[-1].block_ids for session in (first, second)]
        assert common_prefix_length(*ids) == 4
        assert not set(ids[0][4:]) & set(ids[1][4:])

    def test_heads_drawn_by_weight(self) -> None:
        heads = [{"weight": 3, "min_tokens": 40}, {"weight": 1, "max_tokens": 0}]
        role = {"prompt_tokens": 105, "head_tokens": 20, "heads": heads}
        sessions = sessions_of(parameters_of({"main": agent(1, roles={"": role})}), 400)
        counts = Counter(session.turns[0].block_ids[:4] for session in sessions)
        ((_, most),) = counts.most_common(1)
        assert most == pytest.approx(300, abs=40)
        assert sum(num == 1 for num in counts.values()) == 400 - most

    def test_final_step_can_end_sessions_and_others_can_continue(self) -> None:
        steps = {
            "work": step(tool="Bash", next={"work": 1, "report": 1}),
            "report": step(ended_by="human", next={"end": 1}),
        }
        sessions = sessions_of(parameters_of({"main": agent([1, 9], steps=steps)}), 50)
        for session in sessions:
            *before, last = (turn.ended_by for turn in session.turns)
            assert set(before) <= {"tool"}
            assert last == "human" or not before

    def test_steps_end_session_without_num_turns(self) -> None:
        steps = {"work": step(next={"work": 3, "end": 1})}
        sessions = sessions_of(parameters_of({"main": agent(None, steps=steps)}), 2000)
        lengths = [len(session.turns) for session in sessions]
        assert np.mean(lengths) == pytest.approx(4.0, rel=0.1)

    def test_steps_drawn_by_weight(self) -> None:
        steps = {
            "work": step(tool="Bash", next={"work": 1, "read": 3}),
            "read": step(tool="Read", next={"work": 1}),
        }
        sessions = sessions_of(parameters_of({"main": agent(200, steps=steps)}), 10)
        tools = [[turn.tool_name for turn in session.turns] for session in sessions]
        pairs = Counter(pair for each in tools for pair in pairwise(each))
        assert pairs["Read", "Read"] == 0
        assert pairs["Bash", "Read"] / pairs["Bash", "Bash"] == pytest.approx(3, rel=0.2)


class TestRewriting:
    def test_prompt_compacted_below_limit(self) -> None:
        chances = [0.0, 1.0]
        compaction = {"kept_tokens": 30, "size_ratio": 0.5}
        grown = agent(
            40,
            steps={"work": step(added_tokens=2000)},
            compaction_chances=chances,
            rewrites={"compaction": compaction},
        )
        (session,) = sessions_of(parameters_of({"main": grown}), 1)
        sizes = [turn.prompt_tokens for turn in session.turns]
        falls = [index for index, (a, b) in enumerate(pairwise(sizes)) if b < a]
        assert falls
        assert max(sizes) < 2 * 16_384
        for index in falls:
            before, after = session.turns[index], session.turns[index + 1]
            assert after.prompt_tokens == before.prompt_tokens // 2
            assert common_prefix_length(before.block_ids, after.block_ids) == 3
        assert [event.turn_index for event in session.events] == [index + 1 for index in falls]

    def test_tail_rewrite_replaces_only_the_end(self) -> None:
        rewrites = {"tail": {"kept_tokens": 25}}
        steps = {"work": step(rewrites={"tail": 1})}
        main = agent(2, steps=steps, rewrites=rewrites)
        (session,) = sessions_of(parameters_of({"main": main}), 1)
        first, second = session.turns
        assert second.prompt_tokens == 125
        assert common_prefix_length(first.block_ids, second.block_ids) == 8

    def test_return_extends_an_earlier_branch(self) -> None:
        rewrites = {"return": {"turns_back": 2}, "branch": {"kept_tokens": 20, "size_ratio": 1}}
        steps = {"work": step(rewrites={"return": 1})}
        main = agent(4, steps=steps, rewrites=rewrites)
        (session,) = sessions_of(parameters_of({"main": main}), 1)
        ids = [turn.block_ids for turn in session.turns]
        assert common_prefix_length(ids[0], ids[1]) == 2
        assert ids[2][:10] == ids[0]
        assert ids[3][:10] == ids[1]
        assert [event.kind for event in session.events] == ["fork"] * 3

    def test_session_ending_full_stops_at_compaction_size(self) -> None:
        def grown(*, ends_full: bool) -> Session:
            main = agent(
                [80, 90],
                steps={"work": step(added_tokens=2000)},
                compaction_chances=[0.0, 1.0],
                full_tokens=20_000,
                rewrites={"compaction": {"size_ratio": 0.5}},
                dependence=independent(sessions=[traits(ends_full=ends_full)]),
            )
            (session,) = sessions_of(parameters_of({"main": main}), 1)
            return session

        full, other = grown(ends_full=True), grown(ends_full=False)
        assert full.turns[-1].prompt_tokens == 18_105
        assert not full.events
        assert len(other.turns) > len(full.turns)
        assert other.events

    @pytest.mark.parametrize(("chances", "is_limited"), [([], False), ([0.0, 1.0], True)])
    def test_branch_grows_by_added_tokens_up_to_limit(
        self, chances: list[float], is_limited: bool
    ) -> None:
        main = agent(
            3,
            steps={"work": step(rewrites={"branch": 1})},
            compaction_chances=chances,
            rewrites={"branch": {"kept_tokens": 20, "added_tokens": 12_000}, "compaction": {}},
        )
        sessions = sessions_of(parameters_of({"main": main}), 20)
        sizes = np.array([[turn.prompt_tokens for turn in session.turns] for session in sessions])
        assert set(sizes[:, 1]) == {12_105}
        assert sizes[:, 2].max() == 24_105
        assert (sizes[:, 2].min() < 24_105) == is_limited
        assert sizes[:, 2].min() >= 16_384


class TestRolesAndSubAgents:
    def test_role_prompt_has_tokens_since_its_last_turn(self) -> None:
        roles = {name: {"prompt_tokens": 100, "head_tokens": 100} for name in ("ask", "answer")}
        steps = {
            "ask": step(role="ask", added_tokens=7, next={"answer": 1}),
            "answer": step(role="answer", added_tokens=11, next={"ask": 1}),
        }
        main = agent(4, roles=roles, steps=steps, first={"ask": 1}, task_tokens=1)
        (session,) = sessions_of(parameters_of({"main": main}), 1)
        assert [turn.agent for turn in session.turns] == ["ask", "answer", "ask", "answer"]
        assert [turn.prompt_tokens for turn in session.turns] == [101, 108, 119, 126]
        ids = [turn.block_ids for turn in session.turns]
        assert common_prefix_length(ids[0], ids[2]) == 10
        assert common_prefix_length(ids[0], ids[1]) == 0

    def test_role_without_history_gets_last_tokens_only(self) -> None:
        roles = {"a": {"prompt_tokens": 100, "head_tokens": 100, "keeps_history": False}}
        main = agent(3, roles=roles, steps={"work": step(role="a")}, task_tokens=5)
        (session,) = sessions_of(parameters_of({"main": main}), 1)
        assert [turn.prompt_tokens for turn in session.turns] == [105, 120, 120]
        assert common_prefix_length(*(turn.block_ids for turn in session.turns[1:])) == 10

    def test_caller_waits_for_slowest_sub_agent(self) -> None:
        calls = {"agent": "sub", "num": 3, "shares_prompt": True}
        main = agent(2, steps={"work": step(calls=calls, gap_s=1)})
        sub = agent([2, 6], roles={"": {"prompt_tokens": 30}}, steps={"work": step(gap_s=4)})
        parameters = parameters_of({"main": main, "sub": sub}, answer_s_per_token=0.1)
        (caller, *called) = families_of(parameters, 1)[0]
        assert [session.parent_turn for session in called] == [0, 0, 0, 1, 1, 1]
        assert [session.join_turn for session in called] == [1, 1, 1, None, None, None]
        longest = max(len(session.turns) for session in called[:3])
        assert caller.turns[1].gap_s == pytest.approx(4 * (longest - 1) + 0.1 * 5 * longest)
        for session in called[:3]:
            assert session.turns[0].prompt_tokens == 135
            assert session.turns[0].block_ids[:10] == caller.turns[0].block_ids

    def test_nested_sub_agents_joined_by_their_callers(self) -> None:
        def calling(name: str | None, num_turns: int) -> dict[str, Any]:
            calls = {} if name is None else {"calls": {"agent": name}}
            return agent(num_turns, steps={"work": step(**calls)})

        agents = {"main": calling("sub", 2), "sub": calling("leaf", 3), "leaf": calling(None, 1)}
        found = families_of(parameters_of(agents), 1)[0]
        joins = {each.session_id: (each.parent_id, each.join_turn) for each in found}
        first_sub = next(each for each in found[1:] if each.parent_turn == 0)
        leaves = [join for parent, join in joins.values() if parent == first_sub.session_id]
        assert first_sub.join_turn == 1
        assert leaves == [1, 2, None]

    def test_unjoined_sub_agents_change_no_gap(self) -> None:
        calls = {"agent": "sub", "is_joined": False}
        main = agent(2, steps={"work": step(calls=calls, gap_s=1)})
        sub = agent(5, steps={"work": step(gap_s=40)})
        caller, *_ = families_of(parameters_of({"main": main, "sub": sub}), 1)[0]
        assert caller.turns[1].gap_s == 1.0


class TestDependence:
    PERCENTS = np.linspace(0, 100, 201).tolist()
    NORMAL = norm(100, 10).ppf(np.clip(np.linspace(0, 1, 201), 1e-4, 1 - 1e-4)).tolist()

    def sessions(self, num: int = 300, **dependence: Any) -> list[Session]:
        main = agent(
            np.linspace(10, 40, 201).tolist(),
            steps={"work": step(gap_s=self.NORMAL, output_tokens=self.NORMAL)},
            dependence=independent(**dependence),
        )
        return sessions_of(parameters_of({"main": main}, percents=self.PERCENTS), num)

    def gaps(self, sessions: list[Session]) -> list[list[float]]:
        return [[turn.gap_s for turn in session.turns[1:]] for session in sessions]

    def test_values_have_distribution_of_table(self) -> None:
        values = [gap_s for gaps in self.gaps(self.sessions()) for gap_s in gaps]
        assert ks_1samp(values, norm(100, 10).cdf).statistic < 0.03

    def test_gap_correlations_match_dependence(self) -> None:
        levels = (norm.ppf((np.arange(200) + 0.5) / 200) * 0.3**0.5).tolist()
        gaps = self.gaps(
            self.sessions(
                sessions=[
                    traits([index * 73 % 200] * 5, [level, 0, 0])
                    for index, level in enumerate(levels)
                ],
                session_shares=[0.3, 0.0, 0.0],
                next_correlations=[0.43, 0.0, 0.0],
            )
        )
        pairs = [pair for each in gaps for pair in pairwise(each)]
        assert spearmanr(*zip(*pairs, strict=True)).statistic == pytest.approx(0.58, abs=0.06)
        far = [(each[0], each[-1]) for each in gaps]
        assert spearmanr(*zip(*far, strict=True)).statistic == pytest.approx(0.28, abs=0.12)
        values = [gap_s for each in gaps for gap_s in each]
        assert ks_1samp(values, norm(100, 10).cdf).statistic < 0.05

    def test_turn_quantities_correlate_as_given(self) -> None:
        correlations = [[1.0, 0.7, 0.0], [0.7, 1.0, 0.0], [0.0, 0.0, 1.0]]
        sessions = self.sessions(turn_correlations=correlations)
        pairs = [
            (before.output_tokens, turn.gap_s)
            for session in sessions
            for before, turn in pairwise(session.turns)
        ]
        assert spearmanr(*zip(*pairs, strict=True)).statistic == pytest.approx(0.68, abs=0.05)

    def test_session_traits_keep_their_joint_ranks(self) -> None:
        kinds = [
            traits([0, 1, 0, 0, 0], [0.5, 0, 0]),
            traits([1, 0, 1, 1, 1], [-0.5, 0, 0]),
        ]
        sessions = self.sessions(sessions=kinds, session_shares=[0.25, 0.0, 0.0])
        means = [np.mean(each) for each in self.gaps(sessions)]
        lengths = [len(session.turns) for session in sessions]
        assert spearmanr(lengths, means).statistic == pytest.approx(-0.75, abs=0.1)
        assert ks_1samp(lengths, uniform(9.5, 31).cdf).statistic < 0.1

    def test_contradictory_correlations_weakened(self) -> None:
        impossible = [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]
        assert len(self.sessions(3, turn_correlations=impossible)) == 3

    def test_human_waits_match_session_shares(self) -> None:
        steps = {
            "work": step(next={"work": 9, "ask": 1}),
            "ask": step(ended_by="human", next={"work": 9, "ask": 1}),
        }
        main = agent(100, steps=steps, dependence=independent(human_share=(0.0, 0.3)))
        shares = [
            np.mean([turn.ended_by == "human" for turn in session.turns])
            for session in sessions_of(parameters_of({"main": main}), 300)
        ]
        assert np.mean(shares) == pytest.approx(0.1, abs=0.02)
        assert np.std(shares) > 0.05

    def test_human_shares_hold_for_long_and_short_sessions(self) -> None:
        # Nine of ten turns belong to sessions with a share of 0.1, one to sessions with 0.9.
        weights = {"work": 82, "ask": 18}
        steps = {"work": step(next=weights), "ask": step(ended_by="human", next=weights)}
        main = agent(
            (20, 20, 180, 180),
            steps=steps,
            dependence=independent(
                sessions=[traits([0, 0, 1, 0, 0]), traits([1, 1, 0, 1, 1])],
                human_share=(0.1, 0.1, 0.9, 0.9),
            ),
        )
        sessions = sessions_of(parameters_of({"main": main}, percents=[0, 49, 51, 100]), 200)
        for length, share in ((180, 0.1), (20, 0.9)):
            chosen = [session for session in sessions if len(session.turns) == length]
            asked = [turn.ended_by == "human" for each in chosen for turn in each.turns]
            assert np.mean(asked) == pytest.approx(share, rel=0.1)

    def test_sub_agent_calls_concentrate_by_call_share(self) -> None:
        main = agent(
            40,
            steps={"work": step(calls={"agent": "sub", "share": 0.1})},
            dependence=independent(call_share=(0.0, 0.0, 0.2, 0.2)),
        )
        sub = agent(1)
        parameters = parameters_of({"main": main, "sub": sub}, percents=[0, 49, 51, 100])
        nums = [len(family) - 1 for family in families_of(parameters, 200)]
        assert np.mean(np.asarray(nums) == 0) == pytest.approx(0.5, abs=0.1)
        assert max(nums) > 5


def test_different_seeds_share_no_session() -> None:
    parameters = load_set("claude-code")
    lengths = [
        [turn.prompt_tokens for turn in family[0].turns]
        for seed in range(3)
        for family in families_of(parameters, 3, seed)
    ]
    assert len({tuple(each) for each in lengths}) == len(lengths)


@pytest.mark.parametrize("name", set_names())
def test_shipped_sets_generate_valid_sessions(
    name: str, assert_prefix_identity: PrefixCheck
) -> None:
    sessions = sessions_of(load_set(name), 6)
    links, blocks = SessionLinks(), BlockChecks()
    assert [links.kept(session, TraceFile("a", b"")) for session in sessions] == sessions
    assert [problem for session in sessions for problem in blocks.problems(session)] == []
    assert_prefix_identity(sessions)
    again = sessions_of(load_set(name), 6)
    assert sessions_digest(sessions) == sessions_digest(again)
    assert sessions_digest(sessions) != sessions_digest(sessions_of(load_set(name), 6, seed=1))
    assert sessions_of(load_set(name), 3) == sessions[: len(sessions_of(load_set(name), 3))]
