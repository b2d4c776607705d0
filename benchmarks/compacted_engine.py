"""vLLM in this process, with Holdfast's scheduler and compaction, and answers that are forced."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.config import HoldfastConfig
from holdfast.vllm.compaction import compactor
from holdfast.vllm.compaction.requirements import engine_method

__all__ = ["BLOCK", "ENVIRONMENT", "Engine", "Tokens"]

BLOCK, MOST_TOKENS = 32, 4096
# The thread that writes files finds it by its name, so an engine can time it.
WRITE: Final = compactor._write  # noqa: SLF001
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "HOLDFAST_STRICT": "1",
    "PYTHONHASHSEED": "0",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
Tokens = list[int]


class Forced(msgspec.Struct):
    """A text that was forced as an answer: NLL of its tokens, and if greedy ones are the same."""

    nlls: list[float]
    is_exact: bool
    num_dropped: int


class Engine:
    """vLLM with Holdfast's scheduler and compaction, in this process.

    Attributes:
        loads_s: What each load of a compacted prefix took (s).
        writes_s: What writing each file took (s).
    """

    def __init__(self, model: Path, config: HoldfastConfig) -> None:
        from vllm.config import KVTransferConfig

        from holdfast.vllm.compaction.arguments import compaction_config
        from vllm import LLM

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an engine's start warns a lot
            self._llm = LLM(
                model=str(model),
                dtype="float32",
                max_model_len=MOST_TOKENS,
                max_num_seqs=8,
                block_size=BLOCK,
                num_gpu_blocks_override=2 * MOST_TOKENS // BLOCK + 1,
                enforce_eager=True,
                enable_prefix_caching=True,
                prefix_caching_hash_algo="sha256_cbor",
                scheduler_cls="holdfast.vllm.compaction.scheduler.CompactingScheduler",
                kv_transfer_config=KVTransferConfig(**compaction_config(config)),
                logits_processors=[forcing()],
            )
        self.loads_s: list[float] = []
        self.writes_s: list[float] = []
        self._worker.load = partial(timed, self._worker.load, self.loads_s)
        compactor._write = partial(timed, WRITE, self.writes_s)  # noqa: SLF001

    def choose(self, method: str, share: float) -> None:
        """Compact by another method and share from now on; the engine's start takes long."""
        sessions = self._scheduler.connector.compaction.sessions
        settings = {"compact_method": method, "compact_share": share}
        sessions._options = msgspec.structs.replace(sessions._options, **settings)  # noqa: SLF001
        self._worker._method = engine_method(method)  # noqa: SLF001

    @property
    def _scheduler(self) -> Any:
        return self._llm.llm_engine.engine_core.engine_core.scheduler

    @property
    def _worker(self) -> Any:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        return get_kv_transfer_group().compaction._worker  # noqa: SLF001

    @property
    def bytes_per_token(self) -> int:
        """Memory of a token's keys and values in all layers."""
        return sum(layer.bytes_per_token for layer in self._worker._layers)  # noqa: SLF001

    def ask(
        self,
        prompts: Sequence[Tokens],
        *,
        num_outputs: int = 1,
        compact: bool | None = None,
        texts: Sequence[Tokens] = (),
    ) -> list[Any]:
        """Send prompts at once; `texts` are forced as their answers."""
        from vllm import SamplingParams

        wish = {} if compact is None else {"holdfast": {"compact": compact}}
        params = [
            SamplingParams(
                max_tokens=len(texts[number]) if texts else num_outputs,
                temperature=0.0,
                ignore_eos=True,
                detokenize=False,
                logprobs=1 if texts else None,
                extra_args={
                    "kv_transfer_params": wish,
                    "forced": texts[number] if texts else None,
                },
            )
            for number in range(len(prompts))
        ]
        sent = [{"prompt_token_ids": prompt} for prompt in prompts]
        return list(self._llm.generate(sent, params, use_tqdm=False))

    def forced(
        self, pairs: Sequence[tuple[Tokens, Tokens]], *, compact: bool | None = None
    ) -> list[Forced]:
        """NLL of texts after prompts.

        Raises:
            SystemExit: The engine answered something else.
        """
        texts = [text for _, text in pairs]
        found = []
        for output, text in zip(
            self.ask([prompt for prompt, _ in pairs], texts=texts, compact=compact),
            texts,
            strict=True,
        ):
            answer = output.outputs[0]
            if list(answer.token_ids) != text:
                raise SystemExit(f"forced {text}, answered {list(answer.token_ids)}")
            told = [by[token] for by, token in zip(answer.logprobs, text, strict=True)]
            report = (output.kv_transfer_params or {}).get("holdfast", {}).get("compaction") or {}
            is_exact = all(one.rank == 1 for one in told)
            nlls = [-one.logprob for one in told]
            found.append(Forced(nlls, is_exact, report.get("dropped_tokens", 0)))
        return found

    def first_token_s(self, prompt: Tokens, *, compact: bool | None = None) -> float:
        """From a request to its first token (s)."""
        begun_s = time.perf_counter()
        self.ask([prompt], compact=compact)
        return time.perf_counter() - begun_s

    def stored(self, prefix: Tokens) -> Any:
        """The compaction of the session that was last asked for one, once it is written."""
        catalog = self._scheduler.connector.compaction.sessions.catalog
        self.ask([prefix[:3]], compact=False)  # a step, in which the worker compacts
        for _ in range(1000):
            catalog.look()
            if len(catalog):
                (found,) = catalog._found.values()  # noqa: SLF001
                return found
            time.sleep(0.01)
        raise SystemExit("no session was compacted in 10 s")

    def drop_cached(self) -> None:
        """Drop all cached content, not what is compacted."""
        assert self._scheduler.reset_prefix_cache()

    def forget(self) -> None:
        """Remove everything that is cached, and every compaction."""
        self.drop_cached()
        self._scheduler.connector.reset_cache()

    def close(self) -> None:
        """End the engine."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()


def timed(act: Callable[..., None], seconds: list[float], *args: Any) -> None:
    """Run a job and note what it took. Mutates `seconds`."""
    begun_s = time.perf_counter()
    act(*args)
    seconds.append(time.perf_counter() - begun_s)


def forcing() -> type:
    """A processor of logits for vLLM that leaves a request one token at each step."""
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class Forcing(AdapterLogitsProcessor):  # type: ignore[misc]
        """See above; a request has its tokens in `extra_args`."""

        def is_argmax_invariant(self) -> bool:
            """It is not."""
            return False

        def new_req_logits_processor(self, params: Any) -> Any:
            """For one request; None where nothing is forced."""
            tokens = (params.extra_args or {}).get("forced")
            return None if tokens is None else partial(only, tokens)

    return Forcing


def only(tokens: Tokens, said: Sequence[int], logits: Any) -> Any:
    """Logits that leave the next of the tokens. Mutates the logits."""
    token = tokens[min(len(said), len(tokens) - 1)]
    value = logits[token].item()
    logits.fill_(float("-inf"))
    logits[token] = value
    return logits
