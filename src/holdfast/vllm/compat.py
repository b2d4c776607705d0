"""Every difference between the vLLM versions that Holdfast supports, one function each.

Process: every. Checked on vLLM 0.28 ... 0.33; written so that nothing here needs more than 0.23
has.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

__all__ = [
    "argument_parser_class",
    "end_tier_access",
    "engine_number",
    "holding_requests",
    "load_tokenizer",
    "loading_requests",
    "region_paths",
    "session_id_of",
    "set_up_environment",
    "stock_free_queue",
    "tier_lock",
    "uses_priority",
]

_logger = logging.getLogger(__name__)


def session_id_of(request: Any) -> str | None:
    """The session id that came with the request; requests know none before 0.28."""
    session_id: str | None = getattr(request, "session_id", None)
    return session_id


def engine_number(scheduler: Any) -> int:
    """Number of the scheduler's engine among the server's data-parallel ones."""
    parallel = scheduler.vllm_config.parallel_config
    # The rank is reset to 0 in engines that share nothing; their index is not.
    index = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)
    return int(index or 0)


def uses_priority(scheduler: Any) -> bool:
    """Whether the operator asked for `--scheduling-policy priority`."""
    return bool(scheduler.scheduler_config.policy == "priority")


def stock_free_queue(blocks: Sequence[Any]) -> Any:
    """Build vLLM's own free-block queue over `blocks`, first victim first."""
    from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue

    for block in blocks:
        block.prev_free_block = block.next_free_block = None
    return FreeKVCacheBlockQueue(list(blocks))


def tier_lock(manager: Any) -> AbstractContextManager[Any]:
    """What callers of a manager of tiers hold, outside of `schedule`; nothing before vLLM 0.33.

    From then on tiers that serve other engines have a thread of their own in it.
    """
    lock: AbstractContextManager[Any] = getattr(manager, "lock", None) or nullcontext()
    return lock


def end_tier_access(transfers: Any) -> None:
    """Release what vLLM 0.33's connector holds from a request's look-up to the step's end. Mutates.

    Only when the look-up's load has begun, or none will.

    Args:
        transfers: VLLM's `OffloadingConnectorScheduler`.
    """
    getattr(transfers, "_release_step", _nothing)()


def _nothing() -> None:
    pass


def region_paths(region: Any) -> list[Path]:
    """Files of a host tier's shared memory; vLLM 0.33 can split it."""
    segments = getattr(region, "_segments", None) or [(region.mmap_path, 0, 0)]
    return [Path(path) for path, _, _ in segments]


def holding_requests(scheduler: Any) -> list[Any]:
    """Waiting requests that have blocks; none before 0.31, where they wait among the others."""
    return list(getattr(scheduler, "kv_holding_waiting", ()))


def loading_requests(scheduler: Any) -> list[str]:
    """Ids of requests that have blocks and wait for a lower tier to fill them."""
    return [
        request.request_id
        for request in holding_requests(scheduler)
        if request.status.name == "WAITING_FOR_REMOTE_KVS"
    ]


def load_tokenizer(model_config: Any) -> Any:
    """The model's tokenizer; its loader has moved between modules."""
    loader = _first_of(
        ("vllm.tokenizers", "cached_tokenizer_from_config"),
        ("vllm.transformers_utils.tokenizer", "cached_tokenizer_from_config"),
        ("vllm.transformers_utils.tokenizer", "init_tokenizer_from_configs"),
    )
    return loader(model_config)


def set_up_environment() -> None:
    """Sets what vLLM's own command line sets first; before any engine is built. Mutates environ."""
    _first_of(
        ("vllm.entrypoints.common.startup", "cli_env_setup"),  # 0.33
        ("vllm.entrypoints.serve.utils.api_utils", "cli_env_setup"),
        ("vllm.entrypoints.utils", "cli_env_setup"),
    )()


def argument_parser_class() -> Any:
    """VLLM's own class of argument parsers."""
    return _first_of(
        ("vllm.utils.argparse_utils", "FlexibleArgumentParser"),
        ("vllm.utils", "FlexibleArgumentParser"),
    )


def _first_of(*places: tuple[str, str]) -> Any:
    """The first of the named attributes that there is; vLLM has moved them between modules.

    Raises:
        ImportError: There is none, or a module of vLLM's does not import.
    """
    for module, name in places:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
        except AttributeError:
            continue
    tried = ", ".join(f"{module}.{name}" for module, name in places)
    raise ImportError(f"this vLLM has none of {tried}")
