"""Step times of cost profiles, and profile files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile, profile_names

SHIPPED = (
    "2xh100-qwen3-coder-30b-fp8",
    "2xh100-qwen3-coder-30b-fp8-full",
    "2xh200-qwen2.5-coder-32b",
    "a10g-llama3.1-8b",
    "cpu-tiny",
    "h100-llama3.1-8b",
    "h100-qwen2.5-32b",
    "h200-qwen3-coder-30b-a3b",
)

PLAIN = CostProfile(
    name="plain",
    summary='a "plain" one: tokens \N{MULTIPLICATION SIGN} seconds',
    sources=("made up", "for tests"),
    kind="measured",
    block_size_tokens=16,
    kv_tokens=1600,
    kv_bytes_per_token=1000,
    max_num_seqs=8,
    max_num_batched_tokens=512,
    step_base_s=0.5,
    prefill_s_per_token=0.01,
    prefill_s_per_token_context=0.001,
    decode_s_per_seq=0.25,
    decode_s_per_context_token=0.002,
    host_link_bytes_per_s=1e9,
    disk_bytes_per_s=1e8,
)

work = st.lists(st.tuples(st.integers(1, 600), st.integers(0, 100_000)), max_size=20)


def changed(**values: object) -> CostProfile:
    return msgspec.structs.replace(PLAIN, **values)


def test_prompt_costs_its_tokens_and_their_context() -> None:
    # base + 100 tokens + 100 * (40 before them + half of themselves)
    assert PLAIN.step_time_s([(100, 40)]) == pytest.approx(0.5 + 1.0 + 0.001 * 100 * 90)


def test_one_token_after_context_is_a_decode() -> None:
    assert PLAIN.step_time_s([(1, 40)]) == pytest.approx(0.5 + 0.25 + 0.002 * 40)


def test_one_token_prompt_is_a_prefill() -> None:
    assert PLAIN.step_time_s([(1, 0)]) == pytest.approx(0.5 + 0.01 + 0.001 * 0.5)


def test_empty_step_costs_its_base() -> None:
    assert PLAIN.step_time_s([]) == 0.5


@given(work, work)
def test_costs_add_up_with_one_base(first: list, second: list) -> None:  # type: ignore[type-arg]
    together = PLAIN.step_time_s(first + second) + PLAIN.step_base_s
    assert together == pytest.approx(PLAIN.step_time_s(first) + PLAIN.step_time_s(second))


# The last chunk of a prompt may be a single token, which costs what a decode does.
@given(st.integers(2, 3000), st.integers(2, 3000), st.integers(0, 50_000))
def test_chunks_cost_whole_prompt_plus_one_base(first: int, second: int, context: int) -> None:
    chunks = ((first, context), (second, context + first))
    whole_s = PLAIN.step_time_s([(first + second, context)])
    assert sum(PLAIN.step_time_s([chunk]) for chunk in chunks) == pytest.approx(
        whole_s + PLAIN.step_base_s
    )


@given(work, st.tuples(st.integers(1, 600), st.integers(0, 100_000)), st.sampled_from(SHIPPED))
def test_more_work_never_takes_less_time(
    some: list[tuple[int, int]], more: tuple[int, int], name: str
) -> None:
    profile = load_profile(name)
    assert profile.step_time_s([*some, more]) >= profile.step_time_s(some) * (1 - 1e-12)


def test_hidden_prompt_tokens_are_free() -> None:
    profile = changed(hidden_prefill_tokens=100, prefill_s_per_token_context=0.0)
    assert profile.step_time_s([(60, 0), (40, 9)]) == 0.5
    assert profile.step_time_s([(60, 0), (50, 9)]) == pytest.approx(0.5 + 10 * 0.01)


def test_decodes_reduce_hidden_prompt_tokens() -> None:
    profile = changed(hidden_prefill_tokens=100, prefill_s_per_token_context=0.0)
    decodes = [(1, 1)] * 30
    added_s = profile.step_time_s([*decodes, (75, 0)]) - profile.step_time_s(decodes)
    assert added_s == pytest.approx(5 * 0.01)


def test_step_reads_experts_that_any_token_needs() -> None:
    profile = changed(
        sparse_read_s=8.0, sparse_share_per_token=0.25, decode_s_per_context_token=0.0
    )
    one, two = (profile.step_time_s([(1, 5)] * n) - 0.5 - 0.25 * n for n in (1, 2))
    assert one == pytest.approx(8.0 * 0.25)
    assert two == pytest.approx(8.0 * (1 - 0.75**2))
    assert profile.step_time_s([(500, 0)]) - PLAIN.step_time_s([(500, 0)]) == pytest.approx(8.0)


BENT = changed(decode_s_per_context_token=0.0, decode_context_s=((100, 1.0), (200, 4.0)))


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    # 10 ms a token up to 100, 30 ms a token from there on and beyond the last point
    [(1, 0.01), (50, 0.5), (100, 1.0), (150, 2.5), (200, 4.0), (300, 7.0)],
)
def test_points_of_decode_context_joined_by_lines(tokens: int, seconds: float) -> None:
    assert BENT.step_time_s([(1, tokens)]) == pytest.approx(0.5 + 0.25 + seconds)


def test_decode_context_is_that_of_all_decodes() -> None:
    # 75 + 75 tokens; the prompt's 400 of context are not read by decodes
    step_s = BENT.step_time_s([(1, 75), (10, 400), (1, 75)])
    assert step_s == pytest.approx(0.5 + 2 * 0.25 + 2.5 + 10 * 0.01 + 0.001 * 10 * 405)


def test_step_without_decodes_reads_no_context() -> None:
    assert BENT.step_time_s([(10, 40)]) == PLAIN.step_time_s([(10, 40)])


@given(work)
def test_one_point_equals_linear_decode(some: list[tuple[int, int]]) -> None:
    line = changed(decode_s_per_context_token=0.0, decode_context_s=((1000, 2.0),))
    assert line.step_time_s(some) == pytest.approx(PLAIN.step_time_s(some))


def test_request_overhead_grows_with_prompt() -> None:
    profile = changed(request_overhead_s=0.5, request_overhead_s_per_token=0.002)
    assert profile.request_overhead_for_s(0) == 0.5
    assert profile.request_overhead_for_s(100) == pytest.approx(0.7)
    assert PLAIN.request_overhead_for_s(100) == 0.0


@given(work)
def test_profile_without_range_covers_all_work(some: list[tuple[int, int]]) -> None:
    assert PLAIN.covers(some)


@pytest.mark.parametrize(
    ("some", "is_covered"),
    [
        ([], True),
        ([(1, 50), (1, 40)], True),
        ([(1, 50), (1, 41)], False),  # more context together
        ([(1, 5), (1, 5), (1, 5)], False),  # more decodes
        ([(1, 90)], True),  # longer than a prompt may be, and no prompt
        ([(20, 40), (60, 0), (1, 90)], True),  # each prompt by itself
        ([(20, 41)], False),
        ([(61, 0)], False),
    ],
)
def test_range_covers_what_was_fitted(some: list[tuple[int, int]], is_covered: bool) -> None:
    profile = changed(fitted_decodes=2, fitted_decode_context_tokens=90, fitted_prompt_tokens=60)
    assert profile.covers(some) is is_covered


def test_each_limit_of_the_range_is_optional() -> None:
    assert changed(fitted_decodes=1).covers([(1, 10**6), (10**6, 0)])
    assert not changed(fitted_decodes=1).covers([(1, 1), (1, 1)])


def test_shipped_profile_names() -> None:
    assert profile_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_has_file_name_and_sources(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.summary
    assert profile.sources
    assert all(profile.sources)


def test_measured_profiles() -> None:
    measured = [name for name in SHIPPED if load_profile(name).kind == "measured"]
    assert measured == [*SHIPPED[:2], "cpu-tiny"]


def test_cpu_tiny_has_shape_of_demo_engine() -> None:
    from holdfast.bench.server import EngineOptions

    profile = load_profile("cpu-tiny")
    options = EngineOptions(model=Path("m"), kv_tokens=1, max_model_len=1)
    assert profile.block_size_tokens == options.block_size_tokens
    assert profile.max_num_seqs == options.max_num_seqs
    assert profile.max_num_batched_tokens == options.max_num_batched_tokens


@pytest.mark.parametrize("name", SHIPPED)
def test_profile_file_reads_back_equal(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    path = tmp_path / "mine.toml"
    path.write_text(profile.to_toml(), encoding="utf-8")
    assert load_profile(path) == load_profile(str(path)) == profile


def test_quotes_and_signs_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    for profile in (PLAIN, BENT):
        path.write_text(profile.to_toml(), encoding="utf-8")
        assert load_profile(path) == profile


def test_json_profile_read(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_bytes(msgspec.json.encode(PLAIN))
    assert load_profile(path) == PLAIN


def test_unknown_name_error_lists_known_profiles() -> None:
    with pytest.raises(ConfigError, match="'h100-lama'") as caught:
        load_profile("h100-lama")
    for name in SHIPPED:
        assert name in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kv_tokens", 0),
        ("kv_tokens", 15),  # less than a block
        ("kv_tokens", -16),
        ("block_size_tokens", 0),
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", -1),
        ("step_base_s", 0.0),
        ("step_base_s", math.nan),
        ("prefill_s_per_token", -1e-9),
        ("prefill_s_per_token_context", math.inf),
        ("decode_s_per_seq", math.nan),
        ("host_link_bytes_per_s", 0.0),
        ("sparse_share_per_token", 1.5),
        ("hidden_prefill_tokens", -1),
        ("kv_tokens", "many"),
        ("kv_tokens", 1600.5),
        ("step_base_s", True),
        ("kind", "guessed"),
        ("request_overhead_s_per_token", -1e-9),
        ("fitted_decodes", -1),
        ("fitted_prompt_tokens", 1.5),
        ("decode_context_s", [[100, 1.0]]),  # beside decode_s_per_context_token
    ],
)
def test_impossible_value_error_names_file_and_key(key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**msgspec.structs.asdict(PLAIN), key: value}))
    with pytest.raises(ConfigError, match=rf"wrong\.json.*{key}"):
        load_profile(path)


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0.0]],
        [[100, -1.0]],
        [[100, 1.0], [100, 2.0]],
        [[100, 2.0], [200, 1.0]],
        [[100, math.inf]],
        [[100, math.nan]],
        [[100]],
        [[100.5, 1.0]],
        100,
    ],
)
def test_impossible_points_error_names_file_and_key(points: object, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    values = {"decode_s_per_context_token": 0.0, "decode_context_s": points}
    path.write_text(json.dumps({**msgspec.structs.asdict(PLAIN), **values}))
    with pytest.raises(ConfigError, match=r"wrong\.json.*decode_context_s"):
        load_profile(path)


def test_file_without_the_optional_keys_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    content = msgspec.structs.asdict(PLAIN)
    optional = msgspec.structs.fields(CostProfile)
    for key in (field.name for field in optional if field.default is not msgspec.NODEFAULT):
        del content[key]
    path.write_text(json.dumps(content))
    assert load_profile(path) == PLAIN


def test_impossible_value_refused_in_constructor() -> None:
    with pytest.raises(ConfigError, match="step_base_s is -1"):
        changed(step_base_s=-1.0)


@pytest.mark.parametrize("key", ["kv_tokens", "name", "step_base_s"])
def test_missing_key_error_names_it(key: str, tmp_path: Path) -> None:
    path = tmp_path / "short.json"
    content = msgspec.structs.asdict(PLAIN)
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"short\.json.*{key}"):
        load_profile(path)


def test_unknown_key_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text(json.dumps({**msgspec.structs.asdict(PLAIN), "prefil_s": 1}))
    with pytest.raises(ConfigError, match=r"long\.json.*prefil_s"):
        load_profile(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("broken.toml", "kv_tokens = ", "is not TOML"),
        ("broken.json", "{", "is not JSON"),
        ("list.json", "[]", "object"),
    ],
)
def test_broken_file_error_names_it(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{name}.*{said}"):
        load_profile(path)


def test_missing_file_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_profile(tmp_path / "none.toml")
