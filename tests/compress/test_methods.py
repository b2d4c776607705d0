"""Methods by name; what holds for all of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compress.layers import finite, layer_of, random_layer

from holdfast.compress.budget import Budget
from holdfast.compress.methods import Method, find_method, method_names, methods
from holdfast.compress.scores import snap
from holdfast.compress.selection import keep_top
from holdfast.compress.settings import Settings
from holdfast.errors import ConfigError

WINDOWED = ("layer-defensivekv", "defensivekv", "critical-adakv", "criticalkv", "adakv", "snapkv")
EQUAL_COUNTS = ("criticalkv", "snapkv", "keydiff", "knorm", "streaming-llm", "random")
NAMES = st.sampled_from(method_names())
SHARES = st.floats(0.02, 1.0)
LENGTHS = st.integers(1, 90)
SEEDS = st.integers(0, 10_000)


def _kept(name: str, seed: int, length: int, share: float) -> list[torch.Tensor]:
    layers = [random_layer(seed + i, length, index=i) for i in range(3)]
    return find_method(name).keep(layers, Budget(share, length))


@settings(max_examples=50)
@given(NAMES, SEEDS, LENGTHS, SHARES)
def test_every_method_keeps_exactly_the_budget(
    name: str, seed: int, length: int, share: float
) -> None:
    kept = _kept(name, seed, length, share)
    per_head = Budget(share, length).per_head
    assert sum(int(layer.sum()) for layer in kept) == 3 * 2 * per_head
    if name != "layer-defensivekv":
        assert {int(layer.sum()) for layer in kept} == {2 * per_head}
    if name in EQUAL_COUNTS:
        assert {int(count) for layer in kept for count in layer.sum(-1)} == {per_head}


@settings(max_examples=50)
@given(st.sampled_from(WINDOWED), SEEDS, LENGTHS, SHARES)
def test_window_stays_or_as_much_of_it_as_fits(
    name: str, seed: int, length: int, share: float
) -> None:
    newest = min(32, length, Budget(share, length).per_head)
    for layer in _kept(name, seed, length, share):
        assert layer[:, length - newest :].all()


@settings(max_examples=50)
@given(NAMES, SEEDS, LENGTHS)
def test_whole_budget_evicts_nothing(name: str, seed: int, length: int) -> None:
    assert all(bool(layer.all()) for layer in _kept(name, seed, length, 1.0))


@settings(max_examples=50)
@given(
    st.sampled_from([name for name in method_names() if name != "random"]),
    SEEDS,
    st.integers(64, 90),
    st.floats(0.5, 1.0),
)
def test_order_of_heads_does_not_matter(name: str, seed: int, length: int, share: float) -> None:
    method, budget = find_method(name), Budget(share, length)
    layer = random_layer(seed, length, num_heads=3)
    turned = {
        field: getattr(layer, field).roll(1, 0)
        for field in ("queries", "keys", "values", "output_weight")
    }
    (kept,) = method.keep([layer], budget)
    (kept_turned,) = method.keep([replace(layer, **turned)], budget)
    assert kept_turned.equal(kept.roll(1, 0))


@settings(max_examples=50)
@given(st.sampled_from(("snapkv", "knorm", "keydiff", "streaming-llm", "random")), SEEDS, SHARES)
def test_larger_budget_keeps_what_a_smaller_one_does(name: str, seed: int, share: float) -> None:
    less, more = _kept(name, seed, 60, share / 2), _kept(name, seed, 60, share)
    assert all(bool((b | ~a).all()) for a, b in zip(less, more, strict=True))


@settings(max_examples=50)
@given(NAMES, SEEDS, st.integers(2, 60), SHARES)
def test_evicted_entries_are_not_kept_again(
    name: str, seed: int, length: int, share: float
) -> None:
    layer = random_layer(seed, length)
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(2, length, generator=generator) < 0.5
    (kept,) = find_method(name).keep([replace(layer, available=present)], Budget(share, length))
    assert not (kept & ~present).any()
    assert int(kept.sum()) <= min(int(present.sum()), 2 * Budget(share, length).per_head)


@pytest.mark.parametrize(
    ("first_share", "expected"),
    [("0", [2, 3, 4, 5]), ("0.5", [0, 3, 4, 5]), ("1", [0, 1, 2, 5])],
)
def test_critical_decides_part_by_attention(first_share: str, expected: list[int]) -> None:
    # Attention falls from 0 to 4; times norms it is .4 .2 1.5 2 1.9. The window, 5, counts as one
    # of those that attention decides.
    layer = layer_of([[[[0.4, 0.2, 0.15, 0.1, 0.05, 0.1]]]], [[1, 1, 10, 20, 38, 1]])
    method = find_method(f"criticalkv:window=1:kernel=1:first_share={first_share}")
    (kept,) = method.keep([layer], Budget(2 / 3, 6))
    assert kept[0].nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize("first_share", ["0", "0.5"])
def test_critical_adakv_keeps_shares_and_safeguard(first_share: str) -> None:
    layers = [random_layer(seed, 80, index=seed) for seed in range(2)]
    budget = Budget(0.5, 80)
    plain = find_method("adakv:window=4").keep(layers, budget)
    spelled = f"critical-adakv:window=4:first_share={first_share}"
    critical = find_method(spelled).keep(layers, budget)
    counts = [layer.sum(-1).tolist() for layer in plain]
    assert counts == [layer.sum(-1).tolist() for layer in critical]
    assert counts[0][0] != counts[0][1]
    safe = torch.full((2,), 8)  # a fifth of 40
    for layer, kept in zip(layers, critical, strict=True):
        first = snap(layer, budget, Settings(window=4))
        assert not (keep_top(first, safe) & ~kept).any()


def test_window_stays_though_its_values_are_zero() -> None:
    layer = random_layer(0, 40)
    layer.values[:, -4:] = 0
    for name in ("criticalkv", "critical-adakv"):
        (kept,) = find_method(f"{name}:window=4:first_share=0").keep([layer], Budget(0.5, 40))
        assert kept[:, -4:].all()


def test_scope_changes_among_what_entries_compete() -> None:
    layers = [random_layer(seed, 80, index=seed) for seed in range(2)]
    budget = Budget(0.5, 80)

    def counts(spelled: str) -> list[list[int]]:
        return [layer.sum(-1).tolist() for layer in find_method(spelled).keep(layers, budget)]

    assert counts("layer-defensivekv") == counts("defensivekv:scope=all")
    assert counts("defensivekv") == counts("layer-defensivekv:scope=layer")
    assert counts("defensivekv:scope=head") == [[40, 40], [40, 40]]


def test_prompt_within_the_window_needs_no_scores() -> None:
    layer = random_layer(0, 5)
    for name in WINDOWED:
        (kept,) = find_method(name).keep([layer], Budget(0.4, 5))
        assert kept.tolist() == [[False] * 3 + [True] * 2] * 2


def test_scores_before_the_window_are_finite() -> None:
    layer = random_layer(0, 12)
    for name in WINDOWED:
        method = find_method(f"{name}:window=2")
        assert finite(method.score(layer, Budget(0.5, 12), method.settings)).isfinite().all()


def test_keys_that_are_not_numbers_are_an_error() -> None:
    layer = random_layer(0, 40, index=7)
    layer.keys[0, 3, 0] = math.nan
    with pytest.raises(ConfigError, match="snapkv: layer 7 has scores that are not numbers"):
        find_method("snapkv").keep([layer], Budget(0.5, 40))


@pytest.mark.parametrize(
    ("spelling", "message", "hint"),
    [
        ("snap", "no eviction method is called 'snap'", "layer-defensivekv, defensivekv"),
        ("snapkv:windows=3", "snapkv has no setting 'windows'", "window, kernel, scope"),
        ("snapkv:coverage=0.5", "snapkv has no setting 'coverage'", "window, kernel, scope"),
        ("snapkv:window=no", "Expected `int`", "settings of snapkv"),
        ("snapkv:window=0", "Expected `int` >= 1", "settings of snapkv"),
        ("snapkv:kernel=4", "expected an odd number", "settings of snapkv"),
        ("defensivekv:aggregate=median", "Invalid enum value 'median'", "aggregate"),
        ("defensivekv:coverage=1.5", "<= 1.0", "coverage"),
    ],
)
def test_wrong_spelling_says_what_is_known(spelling: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_method(spelling)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_settings_are_read_from_the_spelling() -> None:
    spelled = "defensivekv:aggregate=mean:floor=false:window=8"
    method = find_method(spelled)
    assert method.name == spelled
    settings = method.settings
    assert (settings.aggregate, settings.floor, settings.window) == ("mean", False, 8)
    assert find_method("snapkv").settings == Settings()


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_each_setting_that_a_method_takes_is_one(method: Method) -> None:
    assert set(method.takes) <= set(Settings.__struct_fields__)
    assert method.summary and len(method.summary) <= 80


@pytest.mark.parametrize(
    ("share", "num_tokens", "expected"),
    [(0.29, 100, 29), (0.5, 7, 3), (1.0, 5, 5), (0.001, 5, 1), (1 / 3, 9, 3), (2 / 7, 7, 2)],
)
def test_budget_is_the_share_rounded_down(share: float, num_tokens: int, expected: int) -> None:
    assert Budget(share, num_tokens).per_head == expected


@pytest.mark.parametrize(
    ("share", "num_tokens"), [(0, 5), (1.1, 5), (-1, 5), (math.nan, 5), (0.5, 0)]
)
def test_budget_out_of_range_is_refused(share: float, num_tokens: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Budget(share, num_tokens)
