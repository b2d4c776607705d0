"""Admission on vLLM's own scheduler and cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine


def _workload(rig: Rig, *, num_sessions: int = 6, num_turns: int = 4) -> list[list[str]]:
    """Run overlapping sessions; returns the scheduled requests of each step, in order."""
    steps: list[list[str]] = []
    for turn in range(num_turns):
        for number in range(num_sessions):
            keys = rig.following(rig.requests[f"{number}.{turn - 1}"], "uv") if turn else None
            prompt = keys or f"s{number}" + "abcdefgh"[: number + 1]
            rig.send(f"{number}.{turn}", prompt, num_outputs=5 + 7 * (number % 3))
            if number % 2:
                steps.append(_step(rig))
        while rig.scheduler.has_unfinished_requests():
            steps.append(_step(rig))
            assert len(steps) < 3000
    return steps


def _step(rig: Rig) -> list[str]:
    step = rig.step()
    assert step is not None
    return list(step.num_scheduled_tokens)


# A cache that holds all sessions.


@pytest.mark.parametrize("max_num_batched_tokens", [64, 8192])
def test_fitting_load_runs_as_in_stock_vllm(
    make_rig: RigMaker, max_num_batched_tokens: int
) -> None:
    shape = {"max_num_batched_tokens": max_num_batched_tokens, "max_num_seqs": 64}
    stock, ours = make_rig(400, is_stock=True, **shape), make_rig(400, **shape)
    assert _workload(ours) == _workload(stock)
    assert ours.num_computed_tokens == stock.num_computed_tokens


# A cache too small for all sessions.


def test_overload_ends_all_turns_with_less_computing(make_rig: RigMaker) -> None:
    stock, ours = make_rig(50, is_stock=True), make_rig(50)
    _workload(stock, num_turns=8)
    _workload(ours, num_turns=8)
    assert {i: r.num_output_tokens for i, r in ours.requests.items()} == {
        i: r.num_output_tokens for i, r in stock.requests.items()
    }
    assert ours.num_computed_tokens < stock.num_computed_tokens


@pytest.mark.parametrize("num_spare", [0, 1])
def test_cache_of_one_prompt_and_answer_is_enough(make_rig: RigMaker, num_spare: int) -> None:
    # 4 blocks and 4 tokens of prompt, 12 of answer: the last token is never computed.
    rig = make_rig(5 + num_spare)
    for turn in range(3):
        for number in range(4):
            rig.send(f"{number}.{turn}", f"s{number}" + "abc"[: turn + 1][:2], num_outputs=12)
        rig.step()
        rig.check()
    rig.finish()
    assert {len(request.output_token_ids) for request in rig.requests.values()} == {12}


@pytest.mark.parametrize("num_spare", [0, 1])
def test_one_session_grows_until_the_cache_is_full(make_rig: RigMaker, num_spare: int) -> None:
    rig = make_rig(12 + num_spare)
    last = rig.turn("0", "ab", num_outputs=12)
    for turn in range(1, 10):
        last = rig.turn(str(turn), rig.following(last, "x")[: 2 + turn], num_outputs=12)
    assert len(rig.sessions) == 1


def test_large_prompt_takes_reservations(
    make_rig: RigMaker,
) -> None:
    rig = make_rig(20)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    assert rig.scheduler._queue.num_reserved_blocks == 16
    rig.turn("large", "123456789012345678")
    assert len(rig.requests["large"].output_token_ids) == 8


def test_prompt_waits_for_running_requests(
    make_rig: RigMaker,
) -> None:
    rig = make_rig(20)
    rig.send("running", "abcdefgh", num_outputs=40)
    rig.step()
    rig.send("large", "123456789012345678")
    rig.step()
    assert not rig.scheduler.waiting
    rig.finish()
    assert rig.started == ["running", "large"]


def test_large_prompt_wait_is_bounded(
    make_rig: RigMaker,
) -> None:
    rig = make_rig(20)
    rig.turn("measured", "vwxyz")
    rig.turn("measured too", "wastuv")
    rig.send("running 0", "0abc", num_outputs=30)
    rig.send("running 1", "1abc", num_outputs=30)
    rig.step()
    large = rig.send("large", "123456789012345678")
    turn = rig.scheduler._tracker.turn_of("large")
    assert turn is not None
    for number in range(40):
        rig.send(f"small {number}", f"wast{chr(65 + number)}", num_outputs=10)
        is_due = turn.is_due(rig.now_s)
        num_started = len(rig.started)
        rig.step()
        rig.check()
        assert not is_due or set(rig.started[num_started:]) <= {"large"}
        if "large" in rig.started:
            break
    rig.finish()
    assert large.is_finished()
    assert any(i.startswith("small") for i in rig.started[: rig.started.index("large")])


def test_queued_requests_stay_counted(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    rig.send("running", "abcdefgh", num_outputs=30)
    rig.step()
    for number in range(3):
        rig.send(f"queued {number}", f"{number}tuvwxyz")
    rig.step()
    scheduler = rig.scheduler
    assert not scheduler.waiting and len(scheduler.waiting) == 3
    assert scheduler.get_request_counts() == (1, 3)
    assert scheduler.get_num_unfinished_requests() == 4
    assert rig.metrics["holdfast_requests_held"] == 3
    rig.abort("running")
    assert scheduler.get_request_counts() == (0, 3)
    assert scheduler.has_requests()


def test_engine_never_idles_while_requests_wait(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    for number in range(8):
        rig.send(str(number), f"{number}tuvwxyz", num_outputs=20)
    while rig.scheduler.has_unfinished_requests():
        assert _step(rig)
        rig.check()


def test_resident_session_admitted_before_older_new_one(
    make_rig: RigMaker,
) -> None:
    rig = make_rig(22)
    first = rig.turn("first", "abcdefgh")
    rig.send("running", "stuv", num_outputs=20)
    rig.step()
    rig.send("newcomer", "123456789")
    rig.send("back", rig.following(first, "i"))
    rig.finish()
    assert rig.started == ["first", "running", "back", "newcomer"]


def test_headroom_is_left_free(make_rig: RigMaker) -> None:
    tight, roomy = make_rig(20), make_rig(20, settings={"headroom_ratio": 0.5})
    for rig in (tight, roomy):
        rig.send("1", "abc")
        rig.send("2", "uvw")
        rig.step()
    assert [len(rig.scheduler.running) for rig in (tight, roomy)] == [2, 1]


# Settings.


def test_priorities_apply_under_priority_scheduling(make_rig: RigMaker) -> None:
    orders = []
    for is_stock in (True, False):
        rig = make_rig(50, is_stock=is_stock, max_num_seqs=1, scheduling_policy="priority")
        rig.send("first", "ab", num_outputs=9)
        rig.step()
        for number, priority in enumerate((3, 1, 2, 1)):
            rig.send(f"{number}", f"{number}abc", priority=priority)
        rig.finish()
        orders.append(rig.started)
    assert orders[0] == orders[1] == ["first", "1", "3", "2", "0"]


def test_priorities_ignored_under_fcfs_scheduling(make_rig: RigMaker) -> None:
    rig = make_rig(50, max_num_seqs=1)
    rig.send("first", "ab", num_outputs=9)
    rig.step()
    rig.send("1", "1ab", priority=1)
    rig.send("0", "0ab", priority=0)
    rig.finish()
    assert rig.started == ["first", "1", "0"]


def test_inactive_without_prefix_caching(make_rig: RigMaker) -> None:
    shape = {"has_prefix_cache": False}
    stock, ours = make_rig(30, is_stock=True, **shape), make_rig(30, **shape)
    assert _workload(ours) == _workload(stock)
    pools = [rig.scheduler.kv_cache_manager.block_pool for rig in (stock, ours)]
    assert type(pools[0].free_block_queue) is type(pools[1].free_block_queue)
    assert type(stock.scheduler.waiting) is type(ours.scheduler.waiting)
    assert ours.metrics["holdfast_engine_steps"] > 0


# Tenants.


def test_flood_of_one_tenant_does_not_delay_another(make_rig: RigMaker) -> None:
    rig = make_rig(14)  # one prompt of ten blocks at a time
    rig.turn("costs", "ABCDEFGHIJ")  # the cost of computing is known from here on
    for number in range(8):
        rig.send(f"flood/{number}", f"{number}abcdefghi", tenant="flood")
    rig.step()
    rig.send("small", "zyxwvutsrq", tenant="small")
    rig.finish()
    order = rig.started
    assert order.index("small") <= order.index("flood/2")
    flood = [request_id for request_id in order if request_id.startswith("flood")]
    assert flood == sorted(flood)


def test_turns_of_held_sessions_hide_no_others(make_rig: RigMaker) -> None:
    """Of many waiting turns the policy sees some; those that it would hold come last."""
    policy = "llm-d-thunderagent:idle_lease_s=1000:starvation_s=1000"
    rig = make_rig(100, settings={"policy": policy}, max_num_seqs=100)
    rig.turn("admitted", "abcdef")
    rig.send("running", [f"run {n}".encode() for n in range(60)], num_outputs=60)
    rig.step()
    for number in range(70):
        rig.send(f"new {number}", [f"{number} {n}".encode() for n in range(50)])
    rig.send("admitted again", "abcdef123456789012")  # as cold as the others, and the last
    rig.step()
    assert rig.started == ["admitted", "running", "admitted again"]
