"""What eviction costs: how likely a model's right answers still are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holdfast.compress.attention import retained_mass, window_attention
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.encoded import EncodedQuestion, EncodedSample
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.methods import Method
from holdfast.compress.outcome import FULL, Outcome
from holdfast.compress.session import Session

__all__ = ["evaluate"]


@dataclass(slots=True)
class _Compacted:
    """A session that is compacted after each turn."""

    method: Method
    share: float
    session: Session


def evaluate(
    model: Any,
    samples: Iterable[EncodedSample],
    methods: Sequence[Method],
    shares: Sequence[float],
    gates: Mapping[str, RetentionGates] | None = None,
) -> Iterator[Outcome]:
    """Ask every question of the full cache and of each compacted one.

    All methods share one prefill of the first turn. From the second turn on each session goes on
    by itself: it computes the turn over what it has left, and is compacted again.

    Args:
        model: A causal language model of transformers.
        samples: What to ask.
        methods: Methods.
        shares: Entries that stay, of all tokens so far (above 0, at most 1).
        gates: Gates of the methods that have some, by their setting `gates`.

    Yields:
        Outcomes, question by question; of the full cache first.
    """
    for sample in samples:
        yield from _evaluate(Session(model, gates=gates), sample, methods, shares)


def _evaluate(
    full: Session, sample: EncodedSample, methods: Sequence[Method], shares: Sequence[float]
) -> Iterator[Outcome]:
    compacted: list[_Compacted] = []
    for index, turn in enumerate(sample.turns):
        full.append(turn.tokens)
        if index == 0:
            compacted = [_Compacted(m, share, full.fork()) for m in methods for share in shares]
        for each in compacted:
            if index > 0:
                each.session.append(turn.tokens)
            each.session.compact(each.method, each.share)
        for number, question in enumerate(turn.questions):
            attention = _attention(full, question)
            at = {"task": sample.task, "seed": sample.seed, "turn": index, "question": number}
            yield _outcome(at, FULL, 1.0, full, question, attention)
            for each in compacted:
                name, share = each.method.name, each.share
                yield _outcome(at, name, share, each.session, question, attention)


def _outcome(
    at: dict[str, Any],
    method: str,
    share: float,
    session: Session,
    question: EncodedQuestion,
    attention: Sequence[Tensor],
) -> Outcome:
    nll, is_exact = _answered(session, question)
    retained = torch.cat(
        [
            retained_mass(weights, _kept(layer, weights.shape[-1]))
            for weights, layer in zip(attention, session.cached_layers(), strict=True)
        ]
    )
    return Outcome(
        **at,
        method=method,
        share=share,
        nll=nll,
        is_exact=is_exact,
        retained_mean=float(retained.mean()),
        retained_min=float(retained.min()),
    )


def _answered(session: Session, question: EncodedQuestion) -> tuple[float, bool]:
    """Mean -log p of the answer (nats), and whether a greedy answer is the same."""
    answer = torch.tensor(question.answer)
    # Logits at a token are about the next one; those of the answer's last token are of no use.
    tokens = (*question.tokens, *question.answer[:-1])
    logits = session.ask(tokens, num_logits=len(answer)).cpu()
    nll = -logits.log_softmax(-1).gather(1, answer[:, None]).mean()
    return float(nll), bool((logits.argmax(-1) == answer).all())


def _attention(full: Session, question: EncodedQuestion) -> list[Tensor]:
    """A question's and its answer's attention to the context, (H, g, t, n) a layer."""
    layers = full.queries_of((*question.tokens, *question.answer[:-1]))
    return [
        window_attention(
            layer.queries, layer.keys, layer.visible(layer.queries.shape[2]), layer.scaling
        )
        for layer in layers
    ]


def _kept(layer: CachedLayer, num_tokens: int) -> Tensor:
    """Which tokens' entries a layer still has, (H, num_tokens), bool."""
    kept = torch.zeros((layer.positions.shape[0], num_tokens), dtype=torch.bool)
    return kept.to(layer.positions.device).scatter(1, layer.positions, layer.available)
