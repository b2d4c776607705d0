"""The profiles of a measured pod reproduce the points that they are derived from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.sim.roofline import RooflineFigures, roofline_profile

ANCHOR = Path(__file__).parents[2] / "benchmarks" / "anchor"
MEASURED = json.loads((ANCHOR / "derivation.json").read_text())
LIGHT = load_profile("2xh100-qwen3-coder-30b-fp8")
FULL = load_profile("2xh100-qwen3-coder-30b-fp8-full")
BOTH = pytest.mark.parametrize("profile", [LIGHT, FULL], ids=lambda one: one.name)
FIGURES = msgspec.convert(
    tomllib.loads((ANCHOR / "2xh100-qwen3-coder-30b-fp8-roofline.toml").read_text()),
    RooflineFigures,
)


def prompt_s(profile: CostProfile, prompt: int, cached: int = 0, decodes: int = 0) -> float:
    """Time of a prompt's steps, in chunks, beside decodes of prompts as long."""
    size = profile.max_num_batched_tokens
    chunks = [(min(size, prompt - done), done) for done in range(cached, prompt, size)]
    return sum(profile.step_time_s([chunk, *[(1, prompt)] * decodes]) for chunk in chunks)


def decode_work(decodes: int, context_tokens: float) -> list[tuple[int, int]]:
    return [(1, round(context_tokens / decodes))] * decodes


def cold_errors(profile: CostProfile) -> list[float]:
    points = MEASURED["cold_prefill"]["points"]
    return [prompt_s(profile, prompt) / seconds - 1 for prompt, seconds in points]


def decode_errors(profile: CostProfile) -> list[float]:
    return [
        profile.step_time_s(decode_work(decodes, context)) / seconds - 1
        for decodes, context, seconds in MEASURED["decode"]["points"]
    ]


def full_cache_errors(profile: CostProfile) -> list[float]:
    tokens = MEASURED["kv_tokens"]
    return [
        profile.step_time_s(decode_work(decodes, usage * tokens)) / seconds - 1
        for decodes, usage, seconds in MEASURED["full_cache"]["points"]
    ]


@BOTH
def test_cold_prompts_within_stated_error(profile: CostProfile) -> None:
    errors = cold_errors(profile)
    assert len(errors) == 10
    assert max(map(abs, errors)) < 0.043
    points = MEASURED["cold_prefill"]["points"]
    total_s = sum(prompt_s(profile, prompt) for prompt, _ in points)
    assert total_s == pytest.approx(sum(seconds for _, seconds in points), rel=2e-3)


def test_cold_prompts_follow_the_fitted_curve() -> None:
    for prompt, _ in MEASURED["cold_prefill"]["points"]:
        curve_s = 11.61e-6 * prompt + 0.598e-9 * prompt**2 / 2
        assert prompt_s(LIGHT, prompt) == pytest.approx(curve_s, rel=0.005)


@BOTH
def test_light_decodes_within_stated_error(profile: CostProfile) -> None:
    *most, last = decode_errors(profile)
    assert max(map(abs, most)) < 0.01
    assert last == pytest.approx(-0.052, abs=2e-3)


@BOTH
def test_first_tokens_within_stated_error(profile: CostProfile) -> None:
    for group, most in (("first_token", 0.01), ("first_token_check", 0.03)):
        for prompt, cached, decodes, seconds in MEASURED[group]["points"]:
            first_s = profile.request_overhead_for_s(prompt)
            first_s += prompt_s(profile, prompt, cached, decodes)
            assert first_s == pytest.approx(seconds, rel=most), (group, prompt)


def test_light_profile_too_fast_outside_of_fitted_range() -> None:
    first, *rest = full_cache_errors(LIGHT)
    assert abs(first) < 0.015
    assert -0.22 < min(rest) < max(rest) < -0.10
    points = MEASURED["full_cache"]["points"]
    assert not any(
        LIGHT.covers(decode_work(decodes, usage * LIGHT.kv_tokens)) for decodes, usage, _ in points
    )


def test_full_profile_within_stated_error_at_full_cache() -> None:
    assert max(map(abs, full_cache_errors(FULL))) < 0.016
    points = MEASURED["full_cache"]["points"]
    assert all(
        FULL.covers(decode_work(decodes, usage * FULL.kv_tokens)) for decodes, usage, _ in points
    )


def test_full_profile_differs_only_in_decoding() -> None:
    described = ("name", "summary", "sources", "decode_s_per_context_token", "decode_context_s")
    light, full = map(msgspec.structs.asdict, (LIGHT, FULL))
    differ = {key for key in light if light[key] != full[key]}
    assert differ == {*described, "fitted_decodes", "fitted_decode_context_tokens"}


@BOTH
def test_fitted_points_lie_inside_the_fitted_range(profile: CostProfile) -> None:
    assert profile.kv_tokens == MEASURED["kv_tokens"]
    for decodes, context, _ in MEASURED["decode"]["points"]:
        assert profile.covers(decode_work(decodes, context))
    for prompt, _ in MEASURED["cold_prefill"]["points"]:
        assert profile.covers([(1000, prompt - 1000)])


# docs/profiles.md has these errors in its table.
def test_roofline_of_the_pod_within_stated_errors() -> None:
    fp8_weights = roofline_profile(FIGURES)
    assert fp8_weights.kv_tokens / MEASURED["kv_tokens"] - 1 == pytest.approx(0.010, abs=1e-3)
    errors = cold_errors(fp8_weights)
    assert (min(errors), max(errors)) == pytest.approx((-0.037, 0.197), abs=1e-3)
    first, *_, last = decode_errors(fp8_weights)
    assert (first, last) == pytest.approx((0.159, -0.111), abs=1e-3)
    errors = full_cache_errors(fp8_weights)[1:]
    assert (min(errors), max(errors)) == pytest.approx((-0.288, -0.178), abs=1e-3)


def test_pod_reaches_fp8_peak_nowhere() -> None:
    copy = msgspec.structs.replace
    without = copy(FIGURES, hardware=copy(FIGURES.hardware, fp8_peak_flops=0.0))
    errors = cold_errors(roofline_profile(without))
    assert (min(errors), max(errors)) == pytest.approx((0.100, 0.251), abs=1e-3)
    all_fp8 = copy(FIGURES, model=copy(FIGURES.model, bytes_per_attention=1.0))
    errors = cold_errors(roofline_profile(all_fp8))
    assert (min(errors), max(errors)) == pytest.approx((-0.421, -0.362), abs=1e-3)
