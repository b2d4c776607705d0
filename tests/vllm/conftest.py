"""Rigs of vLLM's own scheduler without a model."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vllm.v1.request import Request

    from holdfast.core.session import Session
    from holdfast.vllm.simulator.workerless import EnginePlan, EngineStep

BLOCK_TOKENS = 16
_NULL_BLOCK_ID = 0
_STEP_S = 0.01
_TOKEN_S = 0.001
_COPY_S = 0.002
_DISK_S = 0.01  # of a block, to or from disk
_MOST_STEPS = 5000


class Rig:
    """One engine on a clock of its own.

    Prompts are block keys; a text stands for one block a letter, so that texts with a common
    beginning share blocks. The answer's full blocks get keys of their own (`Request.block_hashes`
    has them all).

    Args:
        scheduler_cls: The scheduler to drive.
        num_blocks: Usable blocks; vLLM's null block is added.
        is_ahead: Whether the next step is scheduled before the last one is answered.
        copy_s: Time to copy a block to or from host memory (s).
        shape: Further fields of the engine's shape.
    """

    def __init__(
        self,
        scheduler_cls: type[Any],
        num_blocks: int,
        *,
        is_ahead: bool = False,
        copy_s: float = _COPY_S,
        **shape: Any,
    ) -> None:
        from holdfast.vllm.simulator.workerless import EngineShape, WorkerlessEngine

        self.now_s = 0.0
        clock = staticmethod(lambda: self.now_s)
        clocked = type(scheduler_cls.__name__, (scheduler_cls,), {"clock": clock})
        self.engine = WorkerlessEngine(
            clocked,
            EngineShape(num_blocks=num_blocks + 1, **shape),
            lambda: self.now_s,
            copy_s,
            _DISK_S,
        )
        self.scheduler = self.engine.scheduler
        self.num_blocks = num_blocks
        self.requests: dict[str, Request] = {}
        self.started: list[str] = []
        self.num_computed_tokens = 0
        self._is_ahead = is_ahead
        self._plans: deque[EnginePlan] = deque()

    # Actions.

    def send(
        self,
        request_id: str,
        prompt: str | Sequence[bytes],
        *,
        num_outputs: int = 8,
        session_id: str | None = None,
        xargs: dict[str, Any] | None = None,
        priority: int = 0,
        tenant: str | None = None,
    ) -> Request:
        """Send a request of whole blocks and four more tokens."""
        keys = keys_of(prompt) if isinstance(prompt, str) else list(prompt)
        num_tokens = len(keys) * BLOCK_TOKENS + 4
        request = self.engine.request(
            request_id, keys, num_tokens, num_outputs, extra_args=xargs, session_id=session_id
        )
        request.priority = priority
        request.cache_salt = tenant
        return self.hand_in(request)

    def hand_in(self, request: Request) -> Request:
        self.requests[request.request_id] = request
        self.engine.add(request)
        return request

    def step(self) -> EngineStep | None:
        """One engine step; None while the pipeline fills."""
        plan = self.engine.plan()
        self.now_s += _STEP_S + _TOKEN_S * plan.output.total_num_scheduled_tokens
        self._plans.append(plan)
        output = plan.output
        self.started += [new.req_id for new in output.scheduled_new_reqs]
        self.num_computed_tokens += output.total_num_scheduled_tokens
        given = [new.block_ids for new in output.scheduled_new_reqs]
        given += [groups for groups in output.scheduled_cached_reqs.new_block_ids if groups]
        assert all(_NULL_BLOCK_ID not in ids for groups in given for ids in groups)
        if self._is_ahead and output.total_num_scheduled_tokens and len(self._plans) < 2:
            return None
        return self.engine.answer(self._plans.popleft())

    def finish(self) -> None:
        """Step until the engine is idle; fails if it stalls."""
        for _ in range(_MOST_STEPS):
            if self.scheduler.has_unfinished_requests() or self.is_prefetching:
                self.step()
            elif self._plans:
                self.engine.answer(self._plans.popleft())
            else:
                return
        raise AssertionError(f"stalled with {self.scheduler.get_request_counts()}")

    def turn(self, request_id: str, prompt: str | Sequence[bytes], **options: Any) -> Request:
        """Send a request, and wait until a second after its end."""
        request = self.send(request_id, prompt, **options)
        self.finish()
        self.now_s += 1.0
        return request

    def abort(self, request_id: str) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)

    @staticmethod
    def following(request: Request, added: str) -> list[bytes]:
        """A prompt that repeats a request's prompt and answer and adds a block a letter."""
        keys: list[bytes] = list(request.block_hashes)
        return keys + [keys[-1] + b"+" + added[: i + 1].encode() for i in range(len(added))]

    # State.

    @property
    def sessions(self) -> list[Session]:
        return list(self.scheduler._runtime.sessions)

    @property
    def metrics(self) -> dict[str, float]:
        counted: dict[str, float] = self.scheduler.counted
        return counted

    @property
    def is_prefetching(self) -> bool:
        """Whether a prefetch is in flight; never on vLLM's own scheduler."""
        offload = getattr(self.scheduler, "offload", None)
        return offload is not None and bool(offload.is_prefetching)

    @property
    def prefetches(self) -> dict[str, int]:
        """Prefetches by outcome, without zeros."""
        return {name: num for name, num in self.scheduler.offload.prefetches.items() if num}

    @property
    def is_answer_due(self) -> bool:
        """Whether a scheduled step has not been answered."""
        return bool(self._plans)

    @property
    def num_free(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def num_evicted(self) -> int:
        return int(sum(n for name, n in self.metrics.items() if "evicted_blocks" in name))

    def num_cached(self, prompt: str | Sequence[bytes]) -> int:
        """Leading blocks of a prompt that are resident (count)."""
        keys = keys_of(prompt) if isinstance(prompt, str) else prompt
        cached = self.scheduler.kv_cache_manager.block_pool.get_cached_block
        hits = [cached(key, [0]) is not None for key in keys]
        return hits.index(False) if False in hits else len(hits)

    def check(self) -> None:
        """Assert that Holdfast's structures agree with each other and with the engine's."""
        scheduler = self.scheduler
        pool = scheduler.kv_cache_manager.block_pool
        free = pool.free_block_queue.get_all_free_blocks()
        assert {b.block_id for b in free} == {
            b.block_id for b in pool.blocks if b.ref_cnt == 0 and not b.is_null
        }
        assert len(free) == pool.free_block_queue.num_free_blocks
        if getattr(scheduler, "_is_active", False):
            scheduler._queue.check_integrity()
            scheduler._runtime.tree.check_integrity()
            requests = {i for i in scheduler.requests if not i.startswith("holdfast-prefetch-")}
            assert scheduler._tracker._turns.keys() == requests

    def check_done(self) -> None:
        """Assert that every request ended and every block is free."""
        assert all(request.is_finished() for request in self.requests.values())
        assert self.scheduler.get_request_counts() == (0, 0)
        assert self.num_free == self.num_blocks
        self.check()


def keys_of(text: str) -> list[bytes]:
    """A prefix key for each letter."""
    return [text[: i + 1].encode() for i in range(len(text))]


@pytest.fixture(scope="session")
def loaded_engine() -> None:
    """Import the engine and build one scheduler, which imports more; both warn a lot."""
    pytest.importorskip("vllm")
    from vllm.version import __version__ as vllm_version

    wanted = os.environ.get("VLLM_VERSION_UNDER_TEST")
    if wanted is not None:
        assert vllm_version == wanted, "another vLLM stands before it on the path"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        Rig(AsyncScheduler, 8)


RigMaker = Callable[..., Rig]


@pytest.fixture
def make_rig(loaded_engine: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[RigMaker]:
    """Makes rigs with Holdfast that raise errors; at the end each must end all requests.

    `is_stock` takes vLLM's own scheduler, `is_strict=False` lets Holdfast fall back, and
    `settings` are Holdfast's.
    """
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from holdfast.vllm.scheduler import HoldfastScheduler

    rigs: list[Rig] = []
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)

    def make(
        num_blocks: int,
        *,
        is_stock: bool = False,
        is_strict: bool = True,
        settings: dict[str, object] | None = None,
        **options: Any,
    ) -> Rig:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOLDFAST_STRICT", str(int(is_strict)))
            for key, value in (settings or {}).items():
                patch.setenv(f"HOLDFAST_{key.upper()}", str(value))
            rig = Rig(AsyncScheduler if is_stock else HoldfastScheduler, num_blocks, **options)
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.finish()
        rig.check_done()
        rig.scheduler.shutdown()


@pytest.fixture
def rig(make_rig: RigMaker) -> Rig:
    """An engine whose cache holds everything of a short test."""
    return make_rig(100)
