"""Every difference between the supported versions of vLLM, one function each.

Process: every. Checked on vLLM 0.28 ... 0.33; imports nothing that 0.23 lacks.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "argument_parser_class",
    "end_tier_access",
    "engine_number",
    "holding_requests",
    "kv_hints_of",
    "load_tokenizer",
    "loading_requests",
    "messages_take_xargs",
    "region_paths",
    "session_id_of",
    "set_up_environment",
    "stock_free_queue",
    "tier_lock",
    "uses_priority",
]

_logger = logging.getLogger(__name__)


def session_id_of(request: Any) -> str | None:
    """The request's session id; None before vLLM 0.28, whose requests have none."""
    session_id: str | None = getattr(request, "session_id", None)
    return session_id


def messages_take_xargs() -> bool:
    """Whether this server's `/v1/messages` passes `vllm_xargs` on; 0.28's does not."""
    protocol = sys.modules.get("vllm.entrypoints.anthropic.protocol")
    return protocol is None or "vllm_xargs" in protocol.AnthropicMessagesRequest.model_fields


def kv_hints_of(request: Any) -> Any:
    """The request's `kv_hints` as a mapping; None without any, and before vLLM 0.32."""
    envelope = getattr(request, "kv_hints", None)
    return None if envelope is None else msgspec.to_builtins(envelope)


def engine_number(scheduler: Any) -> int:
    """Number of the scheduler's engine among the server's data-parallel engines."""
    parallel = scheduler.vllm_config.parallel_config
    # Engines that share nothing have rank 0 each; their index differs.
    index = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)
    return int(index or 0)


def uses_priority(scheduler: Any) -> bool:
    """Whether the engine runs with `--scheduling-policy priority`."""
    return bool(scheduler.scheduler_config.policy == "priority")


def stock_free_queue(blocks: Sequence[Any]) -> Any:
    """VLLM's own free-block queue of `blocks`, next victim first. Mutates the blocks."""
    from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue

    for block in blocks:
        block.prev_free_block = block.next_free_block = None
    return FreeKVCacheBlockQueue(list(blocks))


def tier_lock(manager: Any) -> AbstractContextManager[Any]:
    """The lock for calls of a tier manager outside of `schedule`.

    A null context before vLLM 0.33; since then a thread of vLLM's calls the manager to serve
    other engines.
    """
    lock: AbstractContextManager[Any] = getattr(manager, "lock", None) or nullcontext()
    return lock


def end_tier_access(transfers: Any) -> None:
    """Release the lock that vLLM 0.33 holds from a lookup to the step's end. Mutates.

    Only after the load of the lookup has started, or if none will.

    Args:
        transfers: An `OffloadingConnectorScheduler`.
    """
    getattr(transfers, "_release_step", _nothing)()


def _nothing() -> None:
    pass


def region_paths(region: Any) -> list[Path]:
    """Files of a host tier's shared memory; vLLM 0.33 may have several."""
    files = getattr(region, "_segments", None) or [(region.mmap_path, 0, 0)]
    return [Path(path) for path, _, _ in files]


def holding_requests(scheduler: Any) -> list[Any]:
    """Waiting requests that have blocks; empty before vLLM 0.31, which lists none."""
    return list(getattr(scheduler, "kv_holding_waiting", ()))


def loading_requests(scheduler: Any) -> list[str]:
    """Ids of requests that have blocks and wait for their load from a lower tier."""
    return [
        request.request_id
        for request in holding_requests(scheduler)
        if request.status.name == "WAITING_FOR_REMOTE_KVS"
    ]


def load_tokenizer(model_config: Any) -> Any:
    """The model's tokenizer."""
    loader = _first_of(
        ("vllm.tokenizers", "cached_tokenizer_from_config"),
        ("vllm.transformers_utils.tokenizer", "cached_tokenizer_from_config"),
        ("vllm.transformers_utils.tokenizer", "init_tokenizer_from_configs"),
    )
    return loader(model_config)


def set_up_environment() -> None:
    """Set the environment as vLLM's command line does. Mutates `os.environ`.

    Call it before any engine exists.
    """
    _first_of(
        ("vllm.entrypoints.common.startup", "cli_env_setup"),  # 0.33
        ("vllm.entrypoints.serve.utils.api_utils", "cli_env_setup"),
        ("vllm.entrypoints.utils", "cli_env_setup"),
    )()


def argument_parser_class() -> Any:
    """The class of vLLM's argument parsers."""
    return _first_of(
        ("vllm.utils.argparse_utils", "FlexibleArgumentParser"),
        ("vllm.utils", "FlexibleArgumentParser"),
    )


def _first_of(*candidates: tuple[str, str]) -> Any:
    """The first attribute that exists; vLLM has moved it between modules.

    Raises:
        ImportError: None exists, or a module of vLLM does not import.
    """
    for module, name in candidates:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
        except AttributeError:
            continue
    tried = ", ".join(f"{module}.{name}" for module, name in candidates)
    raise ImportError(f"this vLLM has none of {tried}")
