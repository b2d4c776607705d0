"""Reads turn ends from the last tokens of outputs, in a thread of its own.

The engine core has only token ids. A thread decodes and parses the last tokens of each finished
request, and the scheduler takes the findings at its next step.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from holdfast.tool_calls.delegated_tasks import normalized
from holdfast.tool_calls.turn_end import SpecialTokens, TurnEnd, parse_turn_end

__all__ = ["OutputTails", "decoder_of", "reader_of", "special_tokens_of"]

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")
Decode = Callable[[Sequence[int]], str]
Read = Callable[[Sequence[int]], V]


class OutputTails(Generic[K, V]):
    """Reads tails of outputs, or of prompts, off the serving path.

    A tokenizer that fails is logged once and ends the reading.

    Args:
        load_reader: Loads the tokenizer; called in the thread when the first tail arrives.
        on_found: Called with each finding at once, in the thread; must not raise.
    """

    def __init__(
        self,
        load_reader: Callable[[], Read[V]],
        on_found: Callable[[K, V], None] = lambda _key, _found: None,
    ) -> None:
        self._load_reader = load_reader
        self._on_found = on_found
        self._tails: queue.SimpleQueue[tuple[K, list[int]]] = queue.SimpleQueue()
        self._findings: deque[tuple[K, V]] = deque()
        self._is_broken = False
        self._thread: threading.Thread | None = None

    def submit(self, key: K, token_ids: Sequence[int]) -> bool:
        """Queue the tail of an output; returns whether a finding will follow. O(tail)."""
        if self._is_broken or not token_ids:
            return False
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._read_all, name="holdfast-tails", daemon=True
            )
            self._thread.start()
        self._tails.put((key, list(token_ids)))
        return True

    def findings(self) -> list[tuple[K, V]]:
        """Take the findings since the last call. Mutates."""
        found: list[tuple[K, V]] = []
        while self._findings:
            found.append(self._findings.popleft())
        return found

    def unread(self) -> list[tuple[K, V]]:
        """Findings that `findings` has not returned yet. Pure; any thread may call it."""
        return list(self._findings.copy())

    def _read_all(self) -> None:
        try:
            read = self._load_reader()
            while True:
                key, token_ids = self._tails.get()
                found = read(token_ids)
                self._findings.append((key, found))
                self._on_found(key, found)
        except Exception:
            self._is_broken = True
            logger.warning(
                "answers are not read any more, so pauses count as of unknown kind and return times"
                " are less exact; requests are served as usual. Check that the tokenizer loads",
                exc_info=True,
            )


def reader_of(model_config: Any) -> Read[TurnEnd]:
    """Reads the turn end from tokens, by the tokenizer's decoder and special tokens."""
    from holdfast.vllm.compat import load_tokenizer

    decode = decoder_of(model_config)
    special_tokens = special_tokens_of(load_tokenizer(model_config))
    return lambda token_ids: parse_turn_end(decode(token_ids), special_tokens)


def text_reader_of(model_config: Any) -> Read[str]:
    """Reads the text of tokens; see `plain`."""
    decode = decoder_of(model_config)
    return lambda token_ids: normalized(decode(token_ids))


def decoder_of(model_config: Any) -> Decode:
    """The tokenizer's decoder with special tokens kept."""
    from holdfast.vllm.compat import load_tokenizer

    tokenizer = load_tokenizer(model_config)

    def decode(token_ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    return decode


def special_tokens_of(tokenizer: Any) -> SpecialTokens:
    """The special tokens that the tokenizer names."""
    ends = {_special_token(tokenizer, name) for name in ("bos", "eos", "pad", "sep")}
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special |= {token.content for token in added if getattr(token, "special", False)}
    return SpecialTokens(
        ends=frozenset(token for token in ends if token),
        others=frozenset(token for token in special - ends if isinstance(token, str) and token),
    )


def _special_token(tokenizer: Any, name: str) -> str:
    """The token of that name, by its id if only that is known; "" without one."""
    token = getattr(tokenizer, f"{name}_token", None)
    token_id = getattr(tokenizer, f"{name}_token_id", None)
    if not isinstance(token, str) and isinstance(token_id, int) and token_id >= 0:
        [token] = tokenizer.convert_ids_to_tokens([token_id])
    return token if isinstance(token, str) else ""
