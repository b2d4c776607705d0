"""Sessions on tiny models: exact masks, removal, turns, forks and refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.compress.layers import tiny_model, tokens
from torch import Tensor

from holdfast.compress.budget import Budget
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.cached_past import MAX_QUERIES
from holdfast.compress.methods import Method, find_method, method_names
from holdfast.compress.session import Session
from holdfast.compress.settings import Settings
from holdfast.errors import ConfigError

CONTEXT, TURN, QUESTION = tokens(1, 150), tokens(2, 40), tokens(3, 12)
KINDS = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture
def session(model: Any) -> Session:
    session = Session(model)
    session.append(CONTEXT)
    return session


def _reference(model: Any, ids: list[int], count: int) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([ids])).logits[0, -count:]
    return logits


def _close(left: Tensor, right: Tensor, within: float = 1e-5) -> bool:
    return bool(torch.allclose(left, right, rtol=0, atol=within))


def _fixed(keep: Tensor) -> Method:
    """A method that keeps the same entries (H, n) of every layer, at a budget of their number."""

    def score(layer: CachedLayer, *_: object) -> Tensor:
        return keep.float()

    def allocate(_: Settings) -> Any:
        return lambda scores, num_kept: [keep.sum(-1) for _ in scores]

    return Method("fixed", "chosen entries", score, allocate, ())


@pytest.mark.parametrize("kind", KINDS)
def test_whole_cache_gives_the_models_own_logits(kind: str) -> None:
    model = tiny_model(kind)
    session = Session(model)
    whole = [*CONTEXT, *TURN, *QUESTION]
    assert _close(session.append(CONTEXT, num_logits=150), _reference(model, CONTEXT, 150))
    session.append(TURN)
    assert _close(session.ask(QUESTION, num_logits=12), _reference(model, whole, 12))
    for method in ("snapkv", "layer-defensivekv"):
        compacted = session.fork()
        compacted.compact(find_method(method), 1.0)
        assert _close(compacted.ask(QUESTION, num_logits=12), _reference(model, whole, 12))


def test_model_is_left_with_its_own_attention(session: Session, model: Any) -> None:
    before = model.config._attn_implementation
    session.ask(QUESTION)
    with pytest.raises(IndexError):
        session.append([1_000_000])
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["snapkv", "keydiff", "random"])
def test_masked_entries_are_as_if_removed(kind: str, name: str) -> None:
    session = Session(tiny_model(kind))
    session.append(CONTEXT)
    removed, masked = session.fork(), session.fork()
    keep = find_method(name).keep(session.cached_layers(), Budget(0.4, 150))
    report = removed.compact(find_method(name), 0.4)
    for index, kept in enumerate(keep):
        masked._past.available[index] = kept
    assert (report.bytes_before, report.bytes_after) == (session.kv_bytes, removed.kv_bytes)
    assert removed.kv_bytes == session.kv_bytes * 60 // 150
    for step in (TURN, QUESTION):
        assert _close(removed.append(step, num_logits=12), masked.append(step, num_logits=12))
    assert not _close(removed.ask(QUESTION), session.ask(QUESTION), 1e-2)


def test_attention_to_what_is_kept_is_worked_out_apart(model: Any) -> None:
    """The mask is by KV head: query heads of the other KV head still see the entry."""
    session = Session(model)
    session.append(CONTEXT)
    keep = torch.zeros(2, 150, dtype=torch.bool)
    keep[0, ::2], keep[1, :40] = True, True
    seen: dict[int, Tensor] = {}
    hook = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(
        lambda _, inputs: seen.update({0: inputs[0][0]})
    )
    session.compact(_fixed(keep), 0.5)
    (layer, _) = session.queries_of(QUESTION)
    hook.remove()
    full = session.fork()
    full.append(QUESTION)
    cached = full._past.cache.layers[0]
    for head in range(2):
        for query_head in range(2):
            query = layer.queries[head, query_head, -1]
            entries = torch.cat([keep[head].nonzero()[:, 0], torch.arange(150, 162)])
            weights = (cached.keys[0, head, entries] @ query * layer.scaling).softmax(0)
            expected = weights @ cached.values[0, head, entries]
            at = (head * 2 + query_head) * 16
            assert _close(seen[0][-1, at : at + 16], expected)


def test_question_and_answer_leave_nothing(session: Session) -> None:
    first = session.ask(QUESTION, num_logits=3)
    answer = session.answer(QUESTION, max_tokens=6)
    session.queries_of(QUESTION)
    assert session.num_tokens == 150
    assert session.ask(QUESTION, num_logits=3).equal(first)
    assert len(answer) == 6
    assert session.answer(QUESTION, max_tokens=6, stop={answer[2]}) == _until(answer, answer[2])


def _until(answer: list[int], stop: int) -> list[int]:
    return answer[: answer.index(stop)]


def test_answer_is_the_models_greedy_one(session: Session, model: Any) -> None:
    ids = torch.tensor([[*CONTEXT, *QUESTION]])
    generated = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert session.answer(QUESTION, max_tokens=8) == generated[0, ids.shape[1] :].tolist()


def test_fork_and_original_do_not_change_each_other(session: Session) -> None:
    before = session.ask(QUESTION)
    fork = session.fork()
    fork.compact(find_method("snapkv"), 0.3)
    fork.append(TURN)
    assert session.ask(QUESTION).equal(before)
    after = fork.ask(QUESTION)
    session.append(TURN)
    session.compact(find_method("adakv"), 0.3)
    assert fork.ask(QUESTION).equal(after)


@pytest.mark.parametrize("name", method_names())
def test_session_compacts_again_after_a_turn(session: Session, name: str) -> None:
    method = find_method(name)
    first = session.compact(method, 0.4)
    assert sum(map(sum, first.kept)) == 2 * 2 * 60
    assert first.num_evicted == 2 * 2 * 90
    session.append(TURN)
    second = session.compact(method, 0.4)
    assert second.budget.num_tokens == 190
    assert sum(map(sum, second.kept)) == 2 * 2 * 76
    assert second.num_evicted == 2 * 2 * (60 + 40 - 76)
    assert session.ask(QUESTION).isfinite().all()


def test_smaller_share_is_reached_in_steps(session: Session) -> None:
    """Evicted entries stay evicted, also where a masked layer becomes a removed one."""
    session.compact(find_method("adakv"), 0.6)
    ragged = [layer.available for layer in session.cached_layers()]
    kept_bytes = session.kv_bytes
    session.compact(find_method("streaming-llm"), 0.2)
    assert session.kv_bytes == kept_bytes * 30 // 150
    for layer, before in zip(session.cached_layers(), ragged, strict=True):
        assert before.gather(1, layer.positions).all()


def test_kept_entries_have_their_original_positions(session: Session) -> None:
    session.compact(find_method("streaming-llm:num_sinks=2"), 0.04)
    session.append(TURN)
    expected = [0, 1, *range(146, 190)]
    for layer in session.cached_layers():
        assert layer.positions.tolist() == [expected, expected]
        assert layer.num_tokens == 190


def test_new_tokens_attend_to_kept_entries_at_original_distance(model: Any) -> None:
    """Keys are rotated once: a cache of the sequence's ends equals attention masked in between."""
    session = Session(model)
    session.append(CONTEXT)
    session.compact(find_method("streaming-llm"), 0.2)
    found = session.ask(QUESTION, num_logits=12)
    mask = torch.ones(1, 1, 162, 162, dtype=torch.bool).tril()
    mask[..., 150:, 4:124] = False
    with torch.no_grad():
        output = model(torch.tensor([[*CONTEXT, *QUESTION]]), attention_mask=mask)
    assert _close(found, output.logits[0, -12:])


def test_queries_of_earlier_turns_still_count(session: Session, model: Any) -> None:
    session.append(TURN)
    whole = Session(model)
    whole.append([*CONTEXT, *TURN])
    for split, once in zip(session.cached_layers(), whole.cached_layers(), strict=True):
        assert split.queries.shape == (2, 2, MAX_QUERIES, 16)
        assert _close(split.queries, once.queries)
        assert _close(split.keys, once.keys)


def test_question_has_queries_of_its_own(session: Session, model: Any) -> None:
    whole = Session(model)
    whole.append([*CONTEXT, *QUESTION])
    asked = session.queries_of(QUESTION)
    for found, layer in zip(asked, whole.cached_layers(), strict=True):
        assert _close(found.queries, layer.last_queries(12))
        assert found.num_entries == 150
        assert found.visible(12).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"kv_lora_rank": 512}, "MLA"),
        ({"num_key_value_heads": None, "model_type": "gpt2"}, "a gpt2 model: it has no num_key"),
    ],
)
def test_models_of_other_caches_are_refused(config: dict[str, Any], message: str) -> None:
    known = {"num_key_value_heads": 2, "num_hidden_layers": 2, **config}
    with pytest.raises(ConfigError, match=message):
        Session(SimpleNamespace(config=SimpleNamespace(**known)))


def test_sliding_window_is_refused_at_the_first_turn() -> None:
    model = tiny_model("mistral")
    model.config.sliding_window = 64
    with pytest.raises(ConfigError, match="sliding_window"):
        Session(model).append(CONTEXT)


def test_attention_without_output_projection_is_refused(model: Any) -> None:
    from transformers import AttentionInterface

    attend = AttentionInterface()["holdfast_compress"]
    states = torch.zeros(1, 2, 3, 16)
    with pytest.raises(ConfigError, match="cache of SimpleNamespace layers"):
        attend(SimpleNamespace(layer_idx=0), states, states, states, None)


def test_empty_turns_and_sessions_are_refused(session: Session, model: Any) -> None:
    with pytest.raises(ConfigError, match="no tokens"):
        session.append([])
    with pytest.raises(ConfigError, match="without tokens"):
        Session(model).compact(find_method("snapkv"), 0.5)
    with pytest.raises(ConfigError, match="share of the cache is 0"):
        session.compact(find_method("snapkv"), 0)
