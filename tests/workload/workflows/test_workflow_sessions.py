"""Generated workflows: exact for constant lengths, statistical for their order."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest

from holdfast.traces.digest import sessions_digest
from holdfast.traces.record import Session, common_prefix_length
from holdfast.workload.workflows.kinds import WORKFLOWS
from holdfast.workload.workflows.sessions import BLOCK_TOKENS, iterate_workflow
from holdfast.workload.workflows.statistics import WorkflowStatistics
from holdfast.workload.workflows.workflow import END, Step, Workflow, WorkflowAgent


def sessions_of(workflow: Workflow, num: int, seed: int = 0) -> list[Session]:
    return list(islice(iterate_workflow(workflow, seed, name="w"), num))


def pair_of_agents(*, keeps_history: bool = True, is_private: bool = False) -> Workflow:
    """Two agents in turn: anchors of 48 and 64 tokens, answers of 10, 6 new tokens a call."""
    return Workflow(
        about="a test",
        agents={
            "a": WorkflowAgent(48, (10, 10), keeps_history),
            "b": WorkflowAgent(64, (10, 10), keeps_history),
        },
        steps={"a": Step("a", {"b": 1}), "b": Step("b", {"a": 1})},
        first="a",
        num_calls=4,
        task_tokens=(20, 20),
        new_tokens=(6, 6),
        is_private=is_private,
    )


def common_blocks(first: Session, second: Session, index: int) -> int:
    return common_prefix_length(first.turns[index].block_ids, second.turns[index].block_ids)


class TestPrompts:
    def test_prompt_is_anchor_task_and_all_that_was_said(self) -> None:
        (session,) = sessions_of(pair_of_agents(), 1)
        said = [48 + 20 + 6, 64 + 20 + 16 + 6, 48 + 20 + 32 + 6, 64 + 20 + 48 + 6]
        assert [turn.prompt_tokens for turn in session.turns] == said
        assert [turn.agent for turn in session.turns] == ["a", "b", "a", "b"]

    def test_prompt_extends_the_last_one_of_its_agent(self) -> None:
        (session,) = sessions_of(pair_of_agents(), 1)
        for before, after in zip(session.turns, session.turns[2:], strict=False):
            assert after.block_ids[: len(before.block_ids)] == before.block_ids
        assert not set(session.turns[0].block_ids) & set(session.turns[1].block_ids)

    def test_without_history_only_anchors_repeat(self) -> None:
        (session,) = sessions_of(pair_of_agents(keeps_history=False), 1)
        assert [turn.prompt_tokens for turn in session.turns] == [54, 70, 54, 70]
        first, third = session.turns[0], session.turns[2]
        assert common_prefix_length(first.block_ids, third.block_ids) == 48 // BLOCK_TOKENS

    def test_sessions_share_anchors_and_nothing_else(self) -> None:
        first, second = sessions_of(pair_of_agents(), 2)
        assert [common_blocks(first, second, index) for index in range(2)] == [3, 4]

    def test_private_agents_share_neither_names_nor_anchors(self) -> None:
        first, second = sessions_of(pair_of_agents(is_private=True), 2)
        assert common_blocks(first, second, 0) == 0
        assert not {t.agent for t in first.turns} & {t.agent for t in second.turns}


def test_equal_seeds_give_equal_sessions_and_more_extend_them() -> None:
    few, more = (sessions_of(WORKFLOWS["selector"], num, seed=3) for num in (2, 3))
    assert sessions_digest(more[:2]) == sessions_digest(few)
    assert sessions_digest(sessions_of(WORKFLOWS["selector"], 2, seed=4)) != sessions_digest(few)


def test_graph_names_the_agents_that_follow_each_other() -> None:
    graph = WORKFLOWS["peer"].graph("1/")
    assert graph is not None
    after = {agent.agent_id: agent.after for agent in graph.agents}
    assert after == {
        "1/planner": ("1/reviewer",),
        "1/executor": ("1/planner",),
        "1/expresser": ("1/executor",),
        "1/reviewer": ("1/expresser",),
    }
    assert [agent.agent_id for agent in graph.agents if agent.is_entry] == ["1/planner"]
    assert WORKFLOWS["random"].graph() is None


def test_graph_of_a_supervisor_leads_to_one_worker_at_a_time() -> None:
    (session,) = sessions_of(WORKFLOWS["supervisor"], 1)
    assert session.graph is not None
    supervisor, *workers = session.graph.agents
    assert (supervisor.fork, supervisor.join, len(supervisor.after)) == ("one", "any", 6)
    assert {worker.after for worker in workers} == {("supervisor",)}


def test_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match="'reviewer' is neither"):
        Workflow("", {}, {"plan": Step("reviewer", {END: 1})}, "plan", num_calls=1)
    with pytest.raises(ValueError, match="'review' is neither"):
        agents = {"planner": WorkflowAgent(16, (1, 1))}
        Workflow("", agents, {"plan": Step("planner", {"review": 1})}, "plan", num_calls=1)


class TestKinds:
    @pytest.mark.parametrize("name", ["peer", "supervisor", "selector", "debate", "random"])
    def test_anchors_have_the_published_share_of_prompts(self, name: str) -> None:
        statistics = WorkflowStatistics.of(sessions_of(WORKFLOWS[name], 60))
        assert statistics.anchor_ratio is not None
        assert 0.5 <= statistics.anchor_ratio <= 0.65

    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [
            ("kvflow-single", 0.99, 1.0),
            ("peer", 0.99, 1.0),
            ("debate", 0.85, 0.99),
            ("supervisor", 0.3, 0.6),
            ("selector", 0.3, 0.6),
            ("random", 0.0, 0.05),
        ],
    )
    def test_predictability(self, name: str, low: float, high: float) -> None:
        statistics = WorkflowStatistics.of(sessions_of(WORKFLOWS[name], 60))
        assert statistics.predictability is not None
        assert low <= round(statistics.predictability, 6) <= high

    def test_supervisor_keeps_its_order_more_often_than_selector(self) -> None:
        shares = {}
        for name in ("supervisor", "selector"):
            pairs: Counter[tuple[str, str]] = Counter()
            for session in sessions_of(WORKFLOWS[name], 40):
                workers = [turn.agent for turn in session.turns[1::2]]
                pairs.update(pairwise(workers))
            shares[name] = pairs["researcher", "analyst"] / sum(
                num for (before, _), num in pairs.items() if before == "researcher"
            )
        assert shares["supervisor"] == pytest.approx(0.8, abs=0.06)
        assert shares["selector"] == pytest.approx(0.5, abs=0.06)

    def test_debate_ends_with_its_judge(self) -> None:
        for session in sessions_of(WORKFLOWS["debate"], 3):
            assert [turn.agent for turn in session.turns].index("judge") == 24

    def test_review_ends_the_workflow_or_goes_back(self) -> None:
        for session in sessions_of(WORKFLOWS["peer"], 20):
            agents = [turn.agent for turn in session.turns]
            assert agents[-1] == "reviewer"
            assert agents == ["planner", "executor", "expresser", "reviewer"] * (len(agents) // 4)


class TestStatistics:
    def test_anchor_ratio_of_known_prompts(self) -> None:
        statistics = WorkflowStatistics.of(sessions_of(pair_of_agents(), 2))
        blocks = [74 // 16, 106 // 16, 106 // 16, 138 // 16]
        assert statistics.anchor_ratio == pytest.approx((3 + 4 + 3 + 4) / sum(blocks))

    def test_nothing_is_known_of_no_session(self) -> None:
        statistics = WorkflowStatistics.of(())
        assert statistics.anchor_ratio is None
        assert statistics.predictability is None
