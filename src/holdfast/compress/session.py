"""A conversation with a model whose KV cache can be compacted at any turn."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from holdfast.compress.budget import Budget
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.cached_past import CachedPast
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.methods import Method
from holdfast.compress.model_run import run_model
from holdfast.errors import ConfigError

__all__ = ["Compaction", "Session"]


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one compaction did.

    Attributes:
        method: Its name.
        budget: What was to stay.
        kept: Entries that stay, by layer and KV head, (L, H).
        num_evicted: Entries that were in the cache and are not any more, of all heads (count).
        bytes_before: Memory of keys and values before it.
        bytes_after: Memory after it. Where heads of a layer keep different numbers, their entries
            are masked, and the layer's memory stays.
    """

    method: str
    budget: Budget
    kept: tuple[tuple[int, ...], ...]
    num_evicted: int
    bytes_before: int
    bytes_after: int


class Session:
    """One sequence of tokens, its KV cache, and which entries of it are left.

    Tokens have the positions of the whole sequence, whatever was evicted, so that rotary
    embeddings stay exact. A session can ask without keeping the question, go on with a turn, and
    compact again; the share of a later compaction is again one of all tokens so far.
    """

    def __init__(
        self,
        model: Any,
        *,
        past: CachedPast | None = None,
        gates: Mapping[str, RetentionGates] | None = None,
    ) -> None:
        """Start a session.

        Args:
            model: A causal language model of transformers with rotary embeddings, full causal
                attention and grouped or multi-head keys, such as Llama, Mistral or Qwen.
            past: What the session already has; nothing if None.
            gates: Gates that look at all tokens, by the name that a method's setting `gates` has.

        Raises:
            ConfigError: The model's cache cannot be compacted head by head.
        """
        self._model = model
        self._past = CachedPast.empty(model) if past is None else past
        self._gates = dict(gates or {})

    @property
    def num_tokens(self) -> int:
        """Tokens so far, those included whose entries are evicted."""
        return self._past.num_tokens

    @property
    def kv_bytes(self) -> int:
        """Memory of keys and values."""
        return self._past.kv_bytes

    def fork(self) -> Session:
        """Another session with the same past; shares memory until one goes on."""
        return Session(self._model, past=self._past.fork(), gates=self._gates)

    def append(self, tokens: Sequence[int], *, num_logits: int = 1) -> Tensor:
        """Go on with a turn. Mutates the session.

        Args:
            tokens: Token ids (at least one).
            num_logits: For how many of the last tokens to compute logits.

        Returns:
            Logits of the tokens that follow, (num_logits, vocabulary), float32.
        """
        logits, captures = run_model(self._model, self._past, tokens, num_logits, self._gates)
        self._past.add_turn(len(tokens), captures)
        return logits

    def ask(self, tokens: Sequence[int], *, num_logits: int = 1) -> Tensor:
        """Logits after tokens that the session then does not have; changes nothing.

        Args:
            tokens: Token ids (at least one).
            num_logits: For how many of the last tokens to compute logits.

        Returns:
            Logits of the tokens that follow, (num_logits, vocabulary), float32.
        """
        return run_model(self._model, self._past.fork(), tokens, num_logits, {})[0]

    def answer(
        self, tokens: Sequence[int], *, max_tokens: int, stop: Container[int] = ()
    ) -> list[int]:
        """The likeliest answer to a question, token by token; changes nothing.

        Args:
            tokens: The question's token ids (at least one).
            max_tokens: Most tokens of the answer (at least one).
            stop: Token ids that end the answer, and are not part of it.

        Returns:
            Token ids.
        """
        turn, answer, step = self.fork(), list[int](), tokens
        while len(answer) < max_tokens:
            token = int(turn.append(step)[-1].argmax())
            if token in stop:
                break
            answer.append(token)
            step = (token,)
        return answer

    def cached_layers(self) -> list[CachedLayer]:
        """All layers as methods look at them; views, valid until the session changes.

        Raises:
            ConfigError: The session has no tokens.
        """
        if not self.num_tokens:
            raise ConfigError("a session without tokens has no cache to compact")
        return self._past.layers()

    def queries_of(self, tokens: Sequence[int]) -> list[CachedLayer]:
        """The cache with the queries of a question; changes nothing.

        Args:
            tokens: The question's token ids (1 to 128).

        Returns:
            For each layer the entries from before the question, with the question's queries.
        """
        _, captures = run_model(self._model, self._past.fork(), tokens, 1, {})
        return self._past.layers(captures, num_tokens=self.num_tokens + len(tokens))

    def compact(self, method: Method, share: float) -> Compaction:
        """Evict all entries but a method's choice. Mutates the session.

        Args:
            method: What chooses.
            share: Entries to keep a head on average, as a share of all tokens (above 0, at most 1).

        Returns:
            What it did.

        Raises:
            ConfigError: The session has no tokens, or the share is out of range.
        """
        layers = self.cached_layers()
        budget = Budget(share, self.num_tokens)
        bytes_before = self.kv_bytes
        num_before = sum(int(layer.available.sum()) for layer in layers)
        keep = method.keep(layers, budget)
        for index, kept in enumerate(keep):
            self._past.evict(index, kept)
        counts = tuple(tuple(kept.sum(-1).tolist()) for kept in keep)
        num_evicted = num_before - sum(map(sum, counts))
        return Compaction(method.name, budget, counts, num_evicted, bytes_before, self.kv_bytes)
