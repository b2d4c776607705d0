"""A model of two layers, vLLM in this process, and what transformers computes."""

from __future__ import annotations

import gc
import json
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.waiting import until

from holdfast.bench.model import BLOCK_SIZE_TOKENS, build_tiny_model
from holdfast.compress.methods import find_method
from holdfast.compress.session import Session
from holdfast.config import HoldfastConfig

NUM_OUTPUTS = 24
KV_TOKENS = 1536
BLOCK = BLOCK_SIZE_TOKENS
BLOCK_BYTES = 2 * 2 * 2 * BLOCK * 64 * 4  # layers, K and V, heads, head size
HOST_GIB = (KV_TOKENS // BLOCK + 2) * BLOCK_BYTES / (1 << 30)
Tokens = list[int]

NUM_KEPT = 192
"""Entries that a compaction keeps of `PROMPT`, 0.6 of it."""

_SCHEDULER = "holdfast.vllm.compaction.scheduler.CompactingScheduler"


def build_model(directory: Path) -> Path:
    """A Llama of two layers with two KV heads, random but sure of its greedy choices."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    build_tiny_model(directory)
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text())
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config_file.write_text(json.dumps(config))
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(directory))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn * 1.5 / parameter.shape[1] ** 0.5)
    model.save_pretrained(directory)
    config_file.write_text(json.dumps(config))
    return directory


def some_tokens(seed: int, count: int) -> Tokens:
    """Token ids of the model's vocabulary."""
    drawn = random.Random(seed)
    return [drawn.randrange(300, 2000) for _ in range(count)]


PROMPT = some_tokens(1, 320)
NEXT = some_tokens(2, 20)


@dataclass(frozen=True)
class Said:
    """An answer, and what it says of its prompt."""

    tokens: Tokens
    num_cached: int
    compaction: dict[str, Any] | None
    ended_by: str | None


class Engine:
    """vLLM with Holdfast's scheduler and compaction, in this process.

    Args:
        model: Directory of the model.
        scheduler: The scheduler's class; Holdfast's, or another with the connector alone.
        settings: Those of Holdfast; `compact_dir` is among them.
    """

    def __init__(self, model: Path, *, scheduler: str = _SCHEDULER, **settings: Any) -> None:
        from vllm.config import KVTransferConfig

        from vllm import LLM

        config = _connector_of(HoldfastConfig(**settings))
        self._has_tiers = "host_gib" in settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an engine's start warns a lot
            self._llm = LLM(
                model=str(model),
                dtype="float32",
                max_model_len=KV_TOKENS,
                max_num_seqs=8,
                block_size=BLOCK,
                num_gpu_blocks_override=KV_TOKENS // BLOCK + 1,
                enforce_eager=True,
                enable_prefix_caching=True,
                prefix_caching_hash_algo="sha256_cbor",
                scheduler_cls=scheduler,
                kv_transfer_config=KVTransferConfig(**config),
            )
        self._num_crowds = 0

    @property
    def scheduler(self) -> Any:
        """The engine core's scheduler."""
        return self._llm.llm_engine.engine_core.engine_core.scheduler

    @property
    def sessions(self) -> Any:
        """The connector's half in the scheduler."""
        return self.scheduler.connector.compaction.sessions

    @property
    def counted(self) -> dict[str, float]:
        """What Holdfast counted."""
        counted: dict[str, float] = self.scheduler.counted
        return counted

    def ask(self, prompt: Tokens, **options: Any) -> Said:
        """Send a prompt for a greedy answer."""
        return self.ask_all([prompt], **options)[0]

    def ask_all(
        self,
        prompts: Sequence[Tokens],
        *,
        num_outputs: int = NUM_OUTPUTS,
        compact: bool | None = None,
        salt: str | None = None,
        is_stored: bool = True,
    ) -> list[Said]:
        """Send prompts at once."""
        from vllm import SamplingParams

        # The transfer gate goes by the time that copies take, which tests cannot foresee.
        every = {
            "max_load_tokens": KV_TOKENS,
            "max_offload_tokens": KV_TOKENS if is_stored else 0,
        }
        wish: dict[str, Any] = every if self._has_tiers else {}
        if compact is not None:
            wish = {**wish, "holdfast": {"compact": compact}}
        params = SamplingParams(
            max_tokens=num_outputs,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            extra_args={"kv_transfer_params": wish},
        )
        salted = {} if salt is None else {"cache_salt": salt}
        sent = [{"prompt_token_ids": prompt, **salted} for prompt in prompts]
        return [_said(each) for each in self._llm.generate(sent, params, use_tqdm=False)]

    def crowd_out(self, *, is_stored: bool = False) -> None:
        """Fill the KV cache with another prompt, so that idle sessions are evicted.

        One prompt that needs all of it: of several the policy may evict one for the next.
        """
        self._num_crowds += 1
        prompt = some_tokens(1_000 * self._num_crowds, KV_TOKENS - BLOCK)
        self.ask(prompt, num_outputs=1, compact=False, is_stored=is_stored)

    def drop(self, *, most: int = 8) -> None:
        """Have the last tier drop the idle sessions that are watched there.

        A host tier of `HOST_GIB` has no space for another session beside a crowd. A crowd cannot be
        stored while chunks of the last one are still being written, hence several.
        """
        for _ in range(most):
            self.crowd_out(is_stored=True)
            if not self.num_watched:
                return
        raise AssertionError(f"{self.num_watched} sessions are still in tiers")

    @property
    def num_watched(self) -> int:
        """Paused sessions of which a tier has copies."""
        return sum(self.sessions.lower.num_watched)

    def await_compactions(self, num_sessions: int) -> None:
        """Wait until so many compactions can be loaded."""
        if self.sessions.has_jobs:  # a server takes steps by itself
            self.ask(some_tokens(0, 3), num_outputs=1, compact=False)
        catalog = self.sessions.catalog

        def is_there() -> bool:
            self.sessions.settle()
            catalog.look()
            return len(catalog) == num_sessions

        until(is_there)

    def forget(self) -> None:
        """Remove everything that is cached, and every compaction."""
        assert self.scheduler.reset_prefix_cache()
        self.scheduler.connector.reset_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine: a process has one at a time."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()


def _connector_of(config: HoldfastConfig) -> dict[str, Any]:
    """The connector's configuration that `holdfast serve` chooses."""
    from holdfast.vllm.compaction.arguments import compaction_config
    from holdfast.vllm.offload.arguments import transfer_config
    from holdfast.vllm.tiered_compaction.arguments import tiered_compaction_config

    if config.host_gib is None:
        return compaction_config(config)
    return (
        transfer_config(config) if config.compact_dir is None else tiered_compaction_config(config)
    )


def _said(output: Any) -> Said:
    answer = output.outputs[0]
    told = (output.kv_transfer_params or {}).get("holdfast", {}).get("compaction")
    return Said(list(answer.token_ids), output.num_cached_tokens or 0, told, answer.finish_reason)


class Reference:
    """The same model in transformers, where entries keep their positions."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def model(self) -> Any:
        """The model."""
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self._directory, dtype=torch.float32).eval()

    def answer(self, tokens: Tokens, num_outputs: int = NUM_OUTPUTS) -> Tokens:
        """The greedy answer from all tokens."""
        return Session(self.model).answer(tokens, max_tokens=num_outputs)

    def compacted(self, tokens: Tokens, num_kept: int, session: Session | None = None) -> Session:
        """A session after these tokens, with so many entries left of each head."""
        session = session or Session(self.model)
        session.append(tokens)
        session.compact(find_method("keydiff"), num_kept / session.num_tokens)
        return session
