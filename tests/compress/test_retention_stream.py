"""Streams of a tiny model against explicit masks, brute force, sessions, and one by one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.compress.gate_cases import gates_for, masked_logits
from tests.compress.layers import tiny_model, tokens
from torch import Tensor

from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.gates.retention import RetentionRule
from holdfast.compress.gates.stream import RetentionStream
from holdfast.compress.methods import find_method
from holdfast.compress.model_hooks import inputs_of_attention
from holdfast.compress.session import Session
from holdfast.errors import ConfigError

LENGTH = 60
IDS = torch.tensor([tokens(seed, LENGTH) for seed in (1, 2, 3)])
ENDS = (0, 20, 27, 28, 40, 55, LENGTH)
RULES = (
    RetentionRule(capacity=9),
    RetentionRule(capacity=9, min_entries=4, lookahead=3),
    RetentionRule(threshold=0.05),
    RetentionRule(capacity=6, slack=8),
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("qwen3")


@pytest.fixture(scope="module")
def gates(model: Any) -> RetentionGates:
    return gates_for(model)


def _kept(stream: RetentionStream) -> list[Tensor]:
    """Which tokens' entries a stream has, (B, H, LENGTH) a layer."""
    found = []
    for entries in stream._entries:
        kept = torch.zeros(*entries.positions.shape[:2], LENGTH, dtype=torch.bool)
        found.append(kept.scatter(2, entries.positions, entries.available))
        # A place without an entry may have the position of one: no entry is there twice.
        assert bool((kept.scatter_add(2, entries.positions, entries.available) >= 0).all())
    return found


def _streamed(stream: RetentionStream, ids: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Logits of all tokens, and what was kept after each chunk."""
    logits, kept = [], []
    for start, end in pairwise(ENDS):
        logits.append(stream.append(ids[:, start:end]))
        kept.append(_kept(stream))
    return torch.cat(logits, dim=1), kept


def _masks(kept: list[list[Tensor]], layer: int) -> Tensor:
    """What each token sees by what was kept before its chunk, (B, H, T, T)."""
    batch, heads = kept[0][layer].shape[:2]
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().repeat(batch, heads, 1, 1)
    for before, (start, end) in zip(kept, list(pairwise(ENDS))[1:], strict=False):
        mask[:, :, start:end, :start] &= before[layer][:, :, None, :start]
    return mask


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_stream_is_an_explicit_mask(model: Any, gates: RetentionGates, rule: RetentionRule) -> None:
    stream = RetentionStream(model, gates, rule, batch_size=3)
    found, kept = _streamed(stream, IDS)
    masks = [_masks(kept, layer) for layer in range(2)]
    expected = masked_logits(model, IDS, masks)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    whole = masked_logits(model, IDS, [torch.ones_like(m).tril() for m in masks])
    assert float((found - whole).abs().max()) > 0.05  # evicted entries would have mattered


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_stream_keeps_what_brute_force_keeps(
    model: Any, gates: RetentionGates, rule: RetentionRule
) -> None:
    told: dict[int, list[Tensor]] = {0: [], 1: []}
    stream = RetentionStream(model, gates, rule, batch_size=3)
    with inputs_of_attention(
        model, lambda layer, inputs: told[layer].append(gates.log_retention(layer, inputs))
    ):
        _, kept = _streamed(stream, IDS)
    log_retention = [torch.cat(told[layer], dim=-1) for layer in range(2)]
    for sequence in range(3):
        there = {(layer, head, i) for layer in (0, 1) for head in (0, 1) for i in range(LENGTH)}
        for step, end in enumerate(ENDS[1:]):
            now = {entry for entry in there if entry[2] < end}
            chosen = _brute_force(now, [layer[sequence] for layer in log_retention], end, rule)
            there -= now - chosen
            found = {
                (layer, head, int(i))
                for layer in (0, 1)
                for head in (0, 1)
                for i in kept[step][layer][sequence, head].nonzero()[:, 0]
            }
            assert found == chosen


def _brute_force(
    entries: set[tuple[int, int, int]], log_retention: list[Tensor], end: int, rule: RetentionRule
) -> set[tuple[int, int, int]]:
    """The rule by its words, one sequence."""
    if rule.capacity is not None and len(entries) < 4 * (rule.capacity + rule.slack):
        return entries

    def score(entry: tuple[int, int, int]) -> float:
        layer, head, i = entry
        beta = math.exp(float(log_retention[layer][head, i]))
        if rule.lookahead == 1:
            return beta ** (end + 1 - i)
        return sum(beta ** (end + 2 - i + step) for step in range(rule.lookahead))

    ranked = sorted(entries, key=score, reverse=True)
    safe = [
        entry
        for layer in (0, 1)
        for head in (0, 1)
        for entry in [e for e in ranked if e[:2] == (layer, head)][: rule.min_entries]
    ]
    rest = [entry for entry in ranked if entry not in safe]
    if rule.threshold is not None:
        rest = [entry for entry in rest if score(entry) >= rule.threshold]
    limit = len(entries) if rule.capacity is None else 4 * rule.capacity
    return set([*safe, *rest][:limit])


def test_nothing_evicted_gives_the_models_own_logits(model: Any, gates: RetentionGates) -> None:
    stream = RetentionStream(model, gates, RetentionRule(capacity=LENGTH), batch_size=3)
    found, _ = _streamed(stream, IDS)
    with torch.no_grad():
        expected = model(IDS).logits
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_batch_equals_sequences_one_by_one(
    model: Any, gates: RetentionGates, rule: RetentionRule
) -> None:
    together, kept = _streamed(RetentionStream(model, gates, rule, batch_size=3), IDS)
    for sequence in range(3):
        alone, own = _streamed(RetentionStream(model, gates, rule), IDS[sequence : sequence + 1])
        assert torch.allclose(together[sequence], alone[0], rtol=0, atol=1e-5)
        for step, layers in enumerate(own):
            for layer, entries in enumerate(layers):
                assert kept[step][layer][sequence].equal(entries[0])


@pytest.mark.parametrize(
    "rule", [RetentionRule(capacity=9, min_entries=2), RetentionRule(threshold=0.05)], ids=repr
)
def test_padding_is_as_if_it_were_not_there(
    model: Any, gates: RetentionGates, rule: RetentionRule
) -> None:
    stream = RetentionStream(model, gates, rule, batch_size=2)
    first, second = torch.tensor(tokens(1, 30)), torch.tensor(tokens(2, 18))
    padded = torch.stack([first, torch.cat([torch.zeros(12, dtype=torch.int64), second])])
    padding = torch.zeros(2, 30, dtype=torch.bool)
    padding[1, :12] = True
    together = stream.append(padded, padding=padding)
    later = torch.tensor([tokens(3, 10), tokens(4, 10)])
    after = stream.append(later)
    assert stream.num_tokens.tolist() == [40, 28]
    for sequence, ids in enumerate((first, second)):
        alone = RetentionStream(model, gates, rule)
        logits = alone.append(ids[None])
        assert torch.allclose(together[sequence, -len(ids) :], logits[0], rtol=0, atol=1e-5)
        logits = alone.append(later[sequence : sequence + 1])
        assert torch.allclose(after[sequence], logits[0], rtol=0, atol=1e-5)
        assert stream.num_entries()[sequence].equal(alone.num_entries()[0])


@pytest.mark.parametrize("setting", ["", ":min_entries=4:lookahead=3", ":scope=head"])
def test_session_compacted_by_gates_is_a_stream(
    model: Any, gates: RetentionGates, setting: str
) -> None:
    """The method `rg10` of sessions, at the share that is the capacity."""
    capacity, method = 9, find_method(f"rg10:gates=own{setting}")
    session = Session(model, gates={"own": gates})
    rule = RetentionRule(
        capacity=capacity,
        min_entries=method.settings.min_entries or (capacity if "scope" in setting else 0),
        lookahead=method.settings.lookahead,
    )
    stream = RetentionStream(model, gates, rule)
    for start, end in pairwise(ENDS):
        expected = stream.append(IDS[:1, start:end])[0]
        found = session.append(IDS[0, start:end].tolist(), num_logits=end - start)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
        session.compact(method, capacity / end)


def test_memory_is_that_of_the_longest_heads(model: Any, gates: RetentionGates) -> None:
    stream = RetentionStream(model, gates, RetentionRule(capacity=9), batch_size=3)
    _streamed(stream, IDS)
    counts = stream.num_entries()
    assert counts.sum((1, 2)).tolist() == [36, 36, 36]
    assert len(counts.unique()) > 1  # heads differ, which makes this a test
    longest = counts.amax((0, 2))
    assert stream.kv_bytes == int(longest.sum()) * 3 * 2 * 16 * 2 * 4


@pytest.mark.parametrize("shape", [(2, 5), (3, 0), (3,)])
def test_tokens_of_another_shape_are_refused(
    model: Any, gates: RetentionGates, shape: tuple[int, ...]
) -> None:
    stream = RetentionStream(model, gates, RetentionRule(capacity=9), batch_size=3)
    with pytest.raises(ConfigError, match=r"expected \(3, q\)"):
        stream.append(torch.zeros(shape, dtype=torch.int64))
    assert stream.num_tokens.tolist() == [0, 0, 0]


def test_model_is_left_as_it_was(model: Any, gates: RetentionGates) -> None:
    before = model.config._attn_implementation
    stream = RetentionStream(model, gates, RetentionRule(capacity=9))
    with pytest.raises(IndexError):
        stream.append(torch.tensor([[1_000_000]]))
    assert model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks for module in model.modules())
