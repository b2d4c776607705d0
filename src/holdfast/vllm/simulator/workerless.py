"""Runs vLLM's own scheduler and KV cache manager without a worker.

Builds the real scheduler and steps it with made-up tokens, so that decisions can be tested and
timed without a model. It has no clock of its own.

Process: the caller's. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_utils import BlockHash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

if TYPE_CHECKING:
    from holdfast.vllm.simulator.disk_tier import SimulatedDisk
    from holdfast.vllm.simulator.host_tier import HostLink

__all__ = ["EnginePlan", "EngineShape", "EngineStep", "WorkerlessEngine"]

_TOKEN = 2

_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 128,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "float32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """The sizes of an engine that the scheduler needs.

    Attributes:
        num_blocks: KV blocks of the cache, with vLLM's null block (count).
        block_size_tokens: Tokens a block.
        max_num_seqs: Requests that may run at once.
        max_num_batched_tokens: Token budget of one engine step.
        max_model_len_tokens: Most tokens of prompt and output together.
        scheduling_policy: vLLM's order of requests.
        has_prefix_cache: Whether prefix caching is on.
        host_blocks: KV blocks that the host tier can store; 0 for no tier. Needs vLLM 0.32.
        host_policy: Eviction policy of the host tier; see `simulated_host_config`.
        disk_blocks: KV blocks that a disk tier below it can store; 0 for no disk.
    """

    num_blocks: int
    block_size_tokens: int = 16
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192
    max_model_len_tokens: int = 600_000
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    has_prefix_cache: bool = True
    host_blocks: int = 0
    host_policy: str = "lru"
    disk_blocks: int = 0


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine step that is planned and not answered yet.

    Attributes:
        output: vLLM's scheduler output.
        samples: Requests that produce a token in this step.
        repeats: Tokens that each decoding request produces.
        stall_s: Time that the step waits for copies before it starts (s).
    """

    output: Any
    samples: frozenset[str]
    repeats: int = 1
    stall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineStep:
    """The result of one engine step.

    Attributes:
        num_scheduled_tokens: Tokens computed, by request id.
        finished: Requests that ended in this step.
        started: Requests that produced their first token in this step.
        num_output_tokens: Tokens produced (count).
    """

    num_scheduled_tokens: dict[str, int]
    finished: tuple[str, ...]
    started: tuple[str, ...]
    num_output_tokens: int


class WorkerlessEngine:
    """Steps a real scheduler without a model.

    Args:
        scheduler_cls: The scheduler's class.
        shape: Size of the engine.
        clock: Simulated time for copies (s).
        host_block_s: Time to copy a block to or from the host tier (s).
        disk_block_s: Time to read or write a block on disk (s).
    """

    def __init__(
        self,
        scheduler_cls: type[Any],
        shape: EngineShape,
        clock: Callable[[], float] = float,
        host_block_s: float = 0.0,
        disk_block_s: float = 0.0,
    ) -> None:
        self.shape = shape
        self._clock = clock
        self._link = _host_link(host_block_s) if shape.host_blocks else None
        config = _vllm_config(shape)
        group = KVCacheGroupSpec(
            ["layer"],
            FullAttentionSpec(
                block_size=shape.block_size_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32
            ),
        )
        self.scheduler = scheduler_cls(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=shape.num_blocks, kv_cache_tensors=[], kv_cache_groups=[group]
            ),
            structured_output_manager=StructuredOutputManager(config),
            block_size=shape.block_size_tokens,
            hash_block_size=shape.block_size_tokens,
            log_stats=False,
        )
        self.scheduler.knows_tokens = False  # prompts have real hashes and equal token ids
        self._disk = _disk_of(self.scheduler) if shape.disk_blocks else None
        if self._disk is not None:
            self._disk.set_speed(clock, disk_block_s)

    def request(
        self,
        request_id: str,
        block_keys: list[bytes],
        num_prompt_tokens: int,
        num_output_tokens: int,
        *,
        extra_args: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Request:
        """A request whose full prompt blocks have the given prefix hashes.

        Args:
            request_id: Unique id.
            block_keys: One key a full prompt block; equal keys mean equal prefixes.
            num_prompt_tokens: At least ``len(block_keys) * block_size_tokens``.
            num_output_tokens: Exact output length.
            extra_args: The request's `vllm_xargs`.
            session_id: The request's session id, if this vLLM has them.
        """
        block_size = self.shape.block_size_tokens

        def hash_blocks(request: Request) -> list[BlockHash]:
            num_known = len(request.block_hashes)
            num_full = request.num_tokens // block_size
            return [
                BlockHash(block_keys[i] if i < len(block_keys) else f"{request_id}/{i}".encode())
                for i in range(num_known, num_full)
            ]

        request = Request(
            request_id=request_id,
            prompt_token_ids=[1] * num_prompt_tokens,
            sampling_params=SamplingParams(
                max_tokens=num_output_tokens,
                ignore_eos=True,
                extra_args=extra_args,
                temperature=0.0,
            ),
            pooling_params=None,
            arrival_time=0.0,
            block_hasher=hash_blocks,
        )
        if session_id is not None:
            request.session_id = session_id
        return request

    def add(self, request: Request) -> None:
        """Add a request to the scheduler. Mutates it."""
        self.scheduler.add_request(request)

    def step(self) -> EngineStep:
        """Plan one step and answer one token for each request whose prefill has ended.

        Mutates the scheduler. A step without scheduled requests has no scheduled tokens.
        """
        return self.answer(self.plan())

    def plan(self, repeats: int = 1) -> EnginePlan:
        """Plan a step; a driver may plan again before it answers, as vLLM does. Mutates.

        Args:
            repeats: Tokens that each decoding request produces, for as many steps: the scheduler
                gets all but one as draft tokens, and all are accepted.
        """
        for request in self.scheduler.running if repeats > 1 else ():
            request.spec_token_ids = [_TOKEN] * (repeats - 1)
        output = self.scheduler.schedule()
        requests = self.scheduler.requests
        samples = [i for i in output.num_scheduled_tokens if not requests[i].is_prefill_chunk]
        stall_s = 0.0
        if self._link is not None:
            stall_s = self._link.start(output.kv_connector_metadata, self._clock())
        return EnginePlan(output, frozenset(samples), repeats, stall_s)

    def answer(self, plan: EnginePlan) -> EngineStep:
        """Answer the oldest plan. Mutates the scheduler."""
        scheduled: dict[str, int] = dict(plan.output.num_scheduled_tokens)
        drafts = plan.output.scheduled_spec_decode_tokens
        req_ids = list(scheduled)
        before = {i: r for i, r in self.scheduler.requests.items() if not self.is_ours(i)}
        link = self._link
        started = [i for i in req_ids if i in plan.samples and _has_no_output(before.get(i))]
        sampled = [
            [_TOKEN] * (len(drafts.get(i, ())) + 1) if i in plan.samples else [] for i in req_ids
        ]
        self.scheduler.update_from_output(
            plan.output,
            ModelRunnerOutput(
                req_ids=req_ids,
                req_id_to_index={req_id: i for i, req_id in enumerate(req_ids)},
                sampled_token_ids=sampled,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
                kv_connector_output=link and link.take_finished(self._clock()),
            ),
        )
        finished = tuple(sorted(before.keys() - self.scheduler.requests.keys()))
        num_output_tokens = sum(
            len(tokens) for i, tokens in zip(req_ids, sampled, strict=True) if not self.is_ours(i)
        )
        return EngineStep(scheduled, finished, tuple(started), num_output_tokens)

    def is_ours(self, request_id: str) -> bool:
        """Whether a request is one of Holdfast's own. Pure."""
        warm_ups = getattr(self.scheduler, "warm_ups", None)
        return warm_ups is not None and warm_ups.is_ours(request_id)


def _has_no_output(request: Request | None) -> bool:
    return request is not None and request.num_output_tokens == 0


def _host_link(block_s: float) -> HostLink:
    from holdfast.vllm.simulator.host_tier import HostLink

    return HostLink(block_s)


def _disk_of(scheduler: Any) -> SimulatedDisk:
    disk: SimulatedDisk = scheduler.connector.connector_scheduler.manager.secondary_tiers[0]
    return disk


def _vllm_config(shape: EngineShape) -> VllmConfig:
    with tempfile.TemporaryDirectory() as directory:
        sizes = {"max_position_embeddings": shape.max_model_len_tokens}
        Path(directory, "config.json").write_text(json.dumps(_MODEL | sizes))
        model = ModelConfig(
            model=directory,
            tokenizer=directory,
            skip_tokenizer_init=True,
            dtype="float32",
            max_model_len=shape.max_model_len_tokens,
        )
    scheduler = SchedulerConfig(
        max_num_seqs=shape.max_num_seqs,
        max_num_batched_tokens=shape.max_num_batched_tokens,
        max_model_len=shape.max_model_len_tokens,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        async_scheduling=True,
        policy=shape.scheduling_policy,
    )
    cache = CacheConfig(
        block_size=shape.block_size_tokens, enable_prefix_caching=shape.has_prefix_cache
    )
    cache.num_gpu_blocks = shape.num_blocks
    tiers: dict[str, Any] = {}
    if shape.host_blocks:
        from holdfast.vllm.simulator.host_tier import simulated_host_config

        tiers["kv_transfer_config"] = simulated_host_config(
            shape.host_blocks, shape.host_policy, shape.disk_blocks
        )
    return VllmConfig(
        model_config=model,
        scheduler_config=scheduler,
        cache_config=cache,
        parallel_config=ParallelConfig(),
        device_config=DeviceConfig("cpu"),
        **tiers,
    )
