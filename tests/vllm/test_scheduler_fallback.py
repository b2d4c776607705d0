"""Fallback to vLLM's own order after an error, without the loss of a request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

_LOGGER = "holdfast.vllm.scheduler"


class _BrokenError(Exception):
    """The error of a broken policy."""


def _break(owner: Any, name: str, num_good_calls: int) -> None:
    """Make a method raise after some good calls."""
    work: Callable[..., Any] = getattr(owner, name)
    num_left = num_good_calls

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_left
        num_left -= 1
        if num_left < 0:
            raise _BrokenError(name)
        return work(*args, **kwargs)

    setattr(owner, name, fail)


def _exercise(rig: Rig) -> None:
    """Returning sessions in a cache too small for them, a preemption and a reset."""
    for turn in range(3):
        for number in range(5):
            prompt = f"s{number}abc" + "xyz"[:turn]
            rig.send(f"{number}.{turn}", prompt, num_outputs=70 if number == 4 else 20)
            rig.step()
        rig.finish()
    for number in range(3):
        rig.send(f"long {number}", f"l{number}", num_outputs=120)
    for _ in range(100):
        rig.step()
    rig.abort("long 0")
    rig.scheduler.reset_prefix_cache(reset_running_requests=True)
    rig.send("last", "s0abc")
    rig.finish()


_CALLS = {
    "hints": ("add_request", "_tracker", "arrive"),
    "lineage": ("add_request", "_runtime.tree", "match"),
    "arrival": ("add_request", "_runtime", "turn_arrived"),
    "admission": ("schedule", "_runtime", "admit"),
    "budget": ("schedule", "_runtime._reservations", "budget"),
    "measuring": ("schedule", "_tracker", "_pick"),
    "findings": ("findings", "_reader", "deliver"),
    "start": ("started", "_runtime", "turn_started"),
    "priority": ("worth", "_runtime", "priority_of"),
    "rescore": ("schedule", "_runtime", "step"),
    "preemption": ("preempt", "_runtime", "turn_preempted"),
    "end": ("finish", "_runtime", "turn_ended"),
    "return tracker": ("finish", "_runtime._tracker", "check"),
    "reset": ("reset_prefix_cache", "_runtime", "content_dropped"),
    "queue's reset": ("reset_prefix_cache", "_queue", "forget_content"),
}


def _owner(rig: Rig, path: str) -> Any:
    owner = rig.scheduler
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


@pytest.mark.parametrize("num_good_calls", [0, 1, 7])
@pytest.mark.parametrize(("where", "path", "name"), _CALLS.values(), ids=_CALLS)
def test_error_falls_back_to_vllm(
    make_rig: RigMaker,
    caplog: pytest.LogCaptureFixture,
    where: str,
    path: str,
    name: str,
    num_good_calls: int,
) -> None:
    from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue

    if where == "reset_prefix_cache" or name == "turn_preempted":
        num_good_calls = 0  # called once or a few times
    rig = make_rig(14, is_strict=False)
    _break(_owner(rig, path), name, num_good_calls)
    with caplog.at_level(logging.ERROR, logger=_LOGGER):
        _exercise(rig)

    fallbacks = {k: v for k, v in rig.metrics.items() if k.startswith("holdfast_fallbacks")}
    assert fallbacks == {f"holdfast_fallbacks/{where}": 1}
    (record,) = [r for r in caplog.records if r.name == _LOGGER]
    assert where in record.getMessage()
    assert record.exc_info is not None and record.exc_info[0] is _BrokenError
    scheduler = rig.scheduler
    assert type(scheduler.waiting) is FCFSRequestQueue
    assert type(scheduler.kv_cache_manager.block_pool.free_block_queue) is FreeKVCacheBlockQueue
    for request_id, request in rig.requests.items():
        if request_id != "long 0":
            assert len(request.output_token_ids) == request.max_tokens


def test_strict_mode_raises_errors(make_rig: RigMaker) -> None:
    rig = make_rig(14)
    _break(rig.scheduler._runtime, "turn_started", 0)
    rig.send("1", "abc")
    with pytest.raises(_BrokenError):
        rig.step()
    rig.abort("1")


def test_error_amid_a_tree_change_loses_no_block(make_rig: RigMaker) -> None:
    for num_good_calls in range(0, 40, 3):
        rig = make_rig(14, is_strict=False)
        _break(rig.scheduler._runtime.tree, "_split", num_good_calls)
        _break(rig.scheduler._queue, "redistribute", num_good_calls // 2)
        _exercise(rig)
        rig.check_done()


def test_queued_requests_run_in_order_after_fallback(make_rig: RigMaker) -> None:
    rig = make_rig(12, is_strict=False)
    rig.send("running", "abcdefgh", num_outputs=30)
    rig.step()
    queued = ["large", "small", "medium"]
    for request_id, prompt in zip(queued, ("1bcdefghij", "2b", "3bcdef"), strict=True):
        rig.send(request_id, prompt)
    rig.step()
    rig.step()
    waiting = [r.request_id for r in rig.scheduler.waiting]
    _break(rig.scheduler._runtime, "admit", 0)
    rig.finish()
    assert [i for i in rig.started if i in waiting] == waiting


def test_oldest_blocks_evicted_first_after_fallback(make_rig: RigMaker) -> None:
    rig = make_rig(14, is_strict=False)
    rig.turn("old", "abcd")
    rig.turn("new", "efgh")
    rig.turn("again", "abcd")
    _break(rig.scheduler._runtime, "turn_arrived", 0)
    rig.turn("more", "ijklmnop")
    assert rig.num_cached("abcd") == 4
    assert rig.num_cached("efgh") < 4


def test_request_priorities_kept_after_fallback(make_rig: RigMaker) -> None:
    from vllm.v1.core.sched.request_queue import PriorityRequestQueue

    rig = make_rig(50, is_strict=False, scheduling_policy="priority", max_num_seqs=1)
    rig.send("first", "ab", num_outputs=20)
    rig.step()
    for priority in (3, 1, 2):
        rig.send(f"priority {priority}", f"{priority}abc", priority=priority)
    _break(rig.scheduler._runtime, "admit", 0)
    rig.finish()
    assert rig.started == ["first", "priority 1", "priority 2", "priority 3"]
    assert type(rig.scheduler.waiting) is PriorityRequestQueue
