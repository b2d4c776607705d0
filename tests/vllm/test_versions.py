"""Names and behaviour of vLLM that Holdfast relies on."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


def _attributes_of(module: Any, owner: str) -> set[str]:
    """Names used as `….owner.name` in a module."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == owner
    }


def test_eviction_queue_has_what_the_block_pool_uses(rig: Rig) -> None:
    from vllm.v1.core import block_pool

    used = _attributes_of(block_pool, "free_block_queue")
    assert {"popleft_n", "remove", "append_n", "num_free_blocks"} <= used
    assert [name for name in used if not hasattr(rig.scheduler._queue, name)] == []


def test_eviction_queue_has_vllms_interface(rig: Rig) -> None:
    from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue

    public = {name for name in vars(FreeKVCacheBlockQueue) if not name.startswith("_")}
    assert {name for name in public if not hasattr(rig.scheduler._queue, name)} == set()


def test_admission_queue_has_vllms_interface(rig: Rig) -> None:
    from vllm.v1.core.sched import scheduler
    from vllm.v1.core.sched.request_queue import RequestQueue

    from holdfast.vllm.request_queue import AdmissionQueue

    assert AdmissionQueue.__abstractmethods__ == frozenset()
    used = _attributes_of(scheduler, "waiting")
    assert {"add_request", "prepend_request"} <= used
    assert [
        name for name in used | vars(RequestQueue).keys() if not hasattr(AdmissionQueue, name)
    ] == []


@pytest.mark.parametrize(
    ("method", "leading"),
    [
        ("add_request", ["request"]),
        ("schedule", []),
        ("reset_prefix_cache", []),
        ("shutdown", []),
        ("_preempt_request", ["request"]),
        ("_free_request", ["request"]),
    ],
)
def test_vllms_scheduler_has_the_overridden_methods(method: str, leading: list[str]) -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    parameters = list(inspect.signature(getattr(AsyncScheduler, method)).parameters)
    assert parameters[1 : 1 + len(leading)] == leading


def test_every_request_end_calls_free_request() -> None:
    from vllm.v1.core.sched import scheduler

    source = inspect.getsource(scheduler.Scheduler.update_from_output)
    source += inspect.getsource(scheduler.Scheduler.finish_requests)
    assert source.count("self._free_request(") == 2


def test_requests_and_blocks_have_the_fields_we_read(rig: Rig) -> None:
    request = rig.turn("1", "ab")
    for name in (
        "block_hashes", "cache_salt", "kv_transfer_params", "max_tokens", "num_computed_tokens",
        "num_output_tokens", "num_tokens", "output_token_ids", "priority", "sampling_params",
        "status",
    ):  # fmt: skip
        assert hasattr(request, name), name
    block = rig.scheduler._pool.blocks[0]
    for name in (
        "block_id", "block_hash", "is_null", "next_free_block", "prev_free_block", "ref_cnt"
    ):  # fmt: skip
        assert hasattr(block, name), name


def test_block_hash_has_prefix_hash_and_group(rig: Rig) -> None:
    request = rig.turn("1", "ab")
    hashes = {block.block_hash for block in rig.scheduler._pool.blocks if block.block_hash}
    assert {value[:-4] for value in hashes} == set(request.block_hashes)


def test_ordinary_model_has_one_hash_a_block(rig: Rig) -> None:
    from holdfast.vllm.cache_layout import CacheLayout, cache_layout

    assert cache_layout(rig.scheduler) == CacheLayout(16, 1, 1)


def test_layout_names_the_full_attention_group() -> None:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

    from holdfast.vllm.cache_layout import cache_layout

    shape = {"num_kv_heads": 1, "head_size": 64, "dtype": torch.float32}
    window = SlidingWindowSpec(block_size=16, sliding_window=64, **shape)
    whole = FullAttentionSpec(block_size=32, **shape)
    layout = cache_layout(_scheduler_of(window, whole))
    assert (layout.group, layout.hashes_per_block, layout.num_groups) == (1, 2, 2)
    assert cache_layout(_scheduler_of(window)).group == 0


def _scheduler_of(*specs: Any) -> Any:
    groups = [SimpleNamespace(kv_cache_spec=spec) for spec in specs]
    cache = SimpleNamespace(kv_cache_groups=groups)
    return SimpleNamespace(kv_cache_config=cache, block_size=16, hash_block_size=16)


def test_session_id_read_from_the_request(rig: Rig) -> None:
    from holdfast.vllm.compat import session_id_of

    assert session_id_of(rig.turn("1", "ab", session_id="s")) == "s"
    assert session_id_of(rig.turn("2", "cd")) is None
    assert session_id_of(object()) is None


def test_scheduling_policy_is_read(make_rig: RigMaker) -> None:
    from holdfast.vllm.compat import uses_priority

    assert uses_priority(make_rig(8, scheduling_policy="priority").scheduler)
    assert not uses_priority(make_rig(8).scheduler)


def test_stock_free_queue_keeps_the_given_order(rig: Rig) -> None:
    from holdfast.vllm.compat import stock_free_queue

    rig.turn("1", "abcd")
    blocks = rig.scheduler._queue.get_all_free_blocks()
    ours = [block for block in blocks if block.block_id % 2]
    queue = stock_free_queue(ours)
    assert queue.num_free_blocks == len(ours)
    assert queue.get_all_free_blocks() == ours
    assert [queue.popleft() for _ in ours] == ours
    rig.scheduler._pool.free_block_queue = stock_free_queue(blocks)
    rig.scheduler._is_active = False


def test_tokenizer_of_a_model_loads(tmp_path: Path) -> None:
    from vllm.config import ModelConfig

    from holdfast.bench.model import build_tiny_model
    from holdfast.vllm.output_tail import decoder_of

    model = str(build_tiny_model(tmp_path / "model"))
    decode = decoder_of(ModelConfig(model=model, tokenizer=model, dtype="float32"))
    assert isinstance(decode([5, 6, 7]), str)
