"""Fits of cost profiles to turns of known engines."""

from __future__ import annotations

import builtins
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from holdfast.core.results import TurnRecord
from holdfast.errors import ConfigError, TraceError
from holdfast.sim.calibration import FitQuality, fit_profile, read_turns
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile

pytest.importorskip("scipy")

BASE = load_profile("cpu-tiny")
ENGINE = msgspec.structs.replace(
    BASE,
    name="truth",
    step_base_s=7e-3,
    prefill_s_per_token=9e-5,
    prefill_s_per_token_context=6e-9,
    decode_s_per_seq=7e-3 * BASE.decode_s_per_seq / BASE.step_base_s,  # in the base's proportion
    decode_s_per_context_token=4e-8,
    request_overhead_s=3e-3,
)
COEFFICIENTS = (
    *("step_base_s", "prefill_s_per_token", "prefill_s_per_token_context"),
    *("decode_s_per_seq", "decode_s_per_context_token", "request_overhead_s"),
)

Noise = Callable[[], float]


def no_noise() -> float:
    return 1.0


def chunks(profile: CostProfile, new: int, cached: int) -> list[tuple[int, int]]:
    size = profile.max_num_batched_tokens
    return [(min(size, new - done), cached + done) for done in range(0, new, size)]


def turns_alone(
    profile: CostProfile, num_turns: int, noise: Noise = no_noise, seed: int = 0
) -> list[TurnRecord]:
    """A client's records of consecutive sessions on the engine of `profile`."""
    drawn = random.Random(seed)
    turns, now_s = [], 0.0
    for index in range(num_turns):
        cached, new = 32 * drawn.randrange(0, 600), drawn.randrange(40, 6000)
        output = drawn.randrange(8, 200)
        steps = [profile.step_time_s([chunk]) for chunk in chunks(profile, new, cached)]
        first_s = now_s + (profile.request_overhead_s + sum(steps)) * noise()
        decodes = sum(profile.step_time_s([(1, cached + new + k)]) for k in range(output - 1))
        last_s = first_s + decodes * noise()
        turns.append(turn(index, now_s, first_s, last_s, cached, new, output))
        now_s = last_s + drawn.random()
    return turns


def turn(
    index: int, sent_s: float, first_s: float, last_s: float, cached: int, new: int, output: int
) -> TurnRecord:
    return TurnRecord(
        session_id=f"s{index}",
        turn_index=index,
        sent_s=sent_s,
        first_token_s=first_s,
        last_token_s=last_s,
        prompt_tokens=cached + new,
        appended_tokens=new,
        first_seen_tokens=new,
        output_tokens=output,
        cached_tokens=cached,
    )


def turns_together(
    profile: CostProfile, num_turns: int, num_sessions: int, seed: int = 0
) -> list[TurnRecord]:
    """The same with concurrent sessions, whose steps mix decodes and prompts."""
    drawn = random.Random(seed)
    turns: list[TurnRecord] = []
    now_s, next_s = 0.0, [drawn.random() for _ in range(num_sessions)]
    running: list[dict[str, float]] = []
    num_sent = 0
    while len(turns) < num_turns:
        for session, due_s in enumerate(next_s):
            if due_s <= now_s and num_sent < num_turns + num_sessions:
                cached, new = 32 * drawn.randrange(0, 600), drawn.randrange(40, 800)
                at = {"session": session, "sent_s": now_s, "cached": cached, "new": new}
                running.append({**at, "output": drawn.randrange(30, 200), "done": 0})
                next_s[session], num_sent = float("inf"), num_sent + 1
        work = [
            (1, int(one["cached"] + one["new"] + one["done"] - 1))
            if one["done"]
            else (int(one["new"]), int(one["cached"]))
            for one in running
        ]
        now_s += profile.step_time_s(work) if work else 0.01
        for one in list(running):
            one["done"] += 1
            if one["done"] == 1:
                one["first_s"] = now_s
            if one["done"] == one["output"]:
                running.remove(one)
                values = (one[key] for key in ("cached", "new", "output"))
                times = (one["sent_s"], one["first_s"], now_s)
                turns.append(turn(len(turns), *times, *map(int, values)))
                next_s[int(one["session"])] = now_s + drawn.random()
    return turns


def fitted(turns: Sequence[TurnRecord], base: CostProfile = BASE) -> tuple[CostProfile, FitQuality]:
    return fit_profile(turns, base, name="fitted", source="a test")


def test_exact_turns_recover_coefficients() -> None:
    profile, quality = fitted(turns_alone(ENGINE, 80))
    for key in COEFFICIENTS:
        assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.01), key
    assert quality.first_token_r2 > 0.999
    assert quality.first_token_median_error < 1e-3
    assert quality.decode_median_error < 1e-3


def test_noise_moves_coefficients_by_a_few_percent() -> None:
    drawn = random.Random(5)

    def noise() -> float:
        return drawn.lognormvariate(0, 0.05)

    profile, quality = fitted(turns_alone(ENGINE, 400, noise))
    for key in ("step_base_s", "prefill_s_per_token", "decode_s_per_seq"):
        assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.03), key
    key = "prefill_s_per_token_context"
    assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.05)
    # A twentieth of the step time, as large as the noise.
    key = "decode_s_per_context_token"
    assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.3)
    assert 0.02 < quality.first_token_median_error < 0.08


def test_stalled_turns_do_not_distort_fit() -> None:
    drawn = random.Random(5)
    turns = turns_alone(ENGINE, 200, lambda: 4.0 if drawn.random() < 0.1 else 1.0)
    profile, _ = fitted(turns)
    for key in ("step_base_s", "prefill_s_per_token", "prefill_s_per_token_context"):
        assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.015), key


def test_burst_turns_do_not_distort_fit() -> None:
    turns = turns_alone(ENGINE, 200)
    for one in turns[::50]:
        assert one.first_token_s is not None
        turns[one.turn_index] = msgspec.structs.replace(one, last_token_s=one.first_token_s + 1e-4)
    profile, _ = fitted(turns)
    for key in ("step_base_s", "prefill_s_per_token", "prefill_s_per_token_context"):
        assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.01), key


def test_fit_keeps_base_sizes_and_names_its_source() -> None:
    profile, _ = fitted(turns_alone(ENGINE, 40))
    assert (profile.name, profile.kind, profile.sources) == ("fitted", "measured", ("a test",))
    for key in ("kv_tokens", "block_size_tokens", "max_num_seqs", "host_link_bytes_per_s"):
        assert getattr(profile, key) == getattr(BASE, key)


def test_fit_drops_what_turns_do_not_show() -> None:
    base = msgspec.structs.replace(
        BASE,
        request_overhead_s_per_token=1e-3,
        decode_s_per_context_token=0.0,
        decode_context_s=((1000, 1.0),),
    )
    profile, _ = fitted(turns_alone(ENGINE, 80), base)
    assert profile.request_overhead_s_per_token == 0.0
    assert profile.decode_context_s == ()
    for key in COEFFICIENTS:
        assert getattr(profile, key) == pytest.approx(getattr(ENGINE, key), rel=0.01), key


def test_fitted_range_is_that_of_the_turns() -> None:
    turns = turns_alone(ENGINE, 80)
    profile, _ = fitted(turns)
    assert profile.fitted_decodes == 1
    assert profile.fitted_prompt_tokens == max(one.prompt_tokens for one in turns)
    contexts = [one.prompt_tokens + one.output_tokens / 2 for one in turns]
    assert profile.fitted_decode_context_tokens == math.ceil(max(contexts))
    assert profile.covers([(1, profile.fitted_prompt_tokens)])
    assert not profile.covers([(1, 40), (1, 40)])


def test_fitted_range_counts_concurrent_decodes() -> None:
    profile, _ = fitted(turns_together(ENGINE, 300, 3))
    assert profile.fitted_decodes in (2, 3)
    assert profile.fitted_decode_context_tokens > profile.fitted_prompt_tokens


def test_one_session_at_a_time_uses_split_of_base() -> None:
    other_base = msgspec.structs.replace(BASE, step_base_s=1e-3, decode_s_per_seq=1e-3)
    profile, quality = fitted(turns_alone(ENGINE, 80), other_base)
    assert quality.is_split_assumed
    assert profile.step_base_s == pytest.approx(profile.decode_s_per_seq)
    total_s = ENGINE.step_base_s + ENGINE.decode_s_per_seq
    assert profile.step_base_s + profile.decode_s_per_seq == pytest.approx(total_s, rel=0.02)


def test_concurrent_sessions_separate_sequence_cost() -> None:
    engine = msgspec.structs.replace(ENGINE, step_base_s=4e-3, decode_s_per_seq=3e-3)
    turns = turns_together(engine, 300, 3)
    profile, quality = fitted(turns)
    assert not quality.is_split_assumed
    assert profile.decode_s_per_seq == pytest.approx(engine.decode_s_per_seq, rel=0.03)
    assert profile.step_base_s == pytest.approx(engine.step_base_s, rel=0.1)
    assert profile.prefill_s_per_token == pytest.approx(engine.prefill_s_per_token, rel=0.1)


def test_expert_cost_taken_from_base() -> None:
    sparse = {"sparse_read_s": 0.05, "sparse_share_per_token": 0.1, "hidden_prefill_tokens": 100}
    base, engine = (msgspec.structs.replace(one, **sparse) for one in (BASE, ENGINE))
    profile, _ = fitted(turns_alone(engine, 80), base)
    assert profile.sparse_read_s == 0.05
    assert profile.prefill_s_per_token == pytest.approx(engine.prefill_s_per_token, rel=0.01)
    assert profile.step_base_s == pytest.approx(engine.step_base_s, rel=0.02)


def test_coefficients_never_negative() -> None:
    flat = msgspec.structs.replace(
        ENGINE, prefill_s_per_token_context=0.0, decode_s_per_context_token=0.0
    )
    drawn = random.Random(1)
    profile, _ = fitted(turns_alone(flat, 60, lambda: drawn.uniform(0.8, 1.2)))
    for key in COEFFICIENTS:
        assert getattr(profile, key) >= 0.0


def test_too_few_turns_refused() -> None:
    with pytest.raises(ConfigError, match="10 usable turns are too few"):
        fitted(turns_alone(ENGINE, 10))


def test_failed_turns_do_not_count() -> None:
    turns = turns_alone(ENGINE, 25)
    failed = [msgspec.structs.replace(one, error_kind="stalled") for one in turns[:10]]
    with pytest.raises(ConfigError, match="15 usable turns"):
        fitted([*failed, *turns[10:]])


def test_turns_without_cached_tokens_refused_with_hint() -> None:
    turns = [msgspec.structs.replace(t, cached_tokens=None) for t in turns_alone(ENGINE, 40)]
    with pytest.raises(ConfigError, match="number of cached prompt tokens") as caught:
        fitted(turns)
    assert "--enable-prompt-tokens-details" in (caught.value.hint or "")


def test_overlapping_turns_refused() -> None:
    crowded = [
        msgspec.structs.replace(t, sent_s=0.0, first_token_s=1.0, last_token_s=2.0)
        for t in turns_alone(ENGINE, 40)
    ]
    with pytest.raises(ConfigError, match="0 turns alone on the engine"):
        fitted(crowded)


def test_equal_prompts_refused() -> None:
    alike = [
        msgspec.structs.replace(t, cached_tokens=t.prompt_tokens - 500)
        for t in turns_alone(ENGINE, 60)
        if t.prompt_tokens > 600
    ]
    with pytest.raises(ConfigError, match="every turn computed 500 to 500"):
        fitted(alike)


def test_missing_scipy_error_has_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_alone(ENGINE, 40)
    real_import = builtins.__import__

    def without_scipy(name: str, *rest: object) -> object:
        if name.split(".")[0] == "scipy":
            raise ImportError(name)
        return real_import(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ConfigError, match="needs scipy") as caught:
        fitted(turns)
    assert "holdfast[sim]" in (caught.value.hint or "")


def write_records(path: Path, turns: Sequence[TurnRecord], *policies: str) -> None:
    """Write a file as `holdfast replay --records` does."""
    rows = [{"policy": p, **msgspec.structs.asdict(t)} for p in policies for t in turns]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def test_replay_records_read(tmp_path: Path) -> None:
    turns = turns_alone(ENGINE, 3)
    write_records(tmp_path / "r.jsonl", turns, "holdfast")
    read = read_turns(tmp_path / "r.jsonl")
    assert [msgspec.to_builtins(one) for one in read] == [
        {**msgspec.to_builtins(one), "policy": "holdfast"} for one in turns
    ]


def test_policy_required_for_several_policies(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, turns_alone(ENGINE, 3), "holdfast", "vllm-default")
    assert len(read_turns(path, "holdfast")) == 3
    for policy in (None, "saga"):
        with pytest.raises(ConfigError, match=r"r\.jsonl: policy is") as caught:
            read_turns(path, policy)
        assert "vllm-default" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["{", '{"session_id": "s"}', "[]"])
def test_malformed_line_error_has_its_number(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, turns_alone(ENGINE, 1), "holdfast")
    with path.open("a") as file:
        file.write(f"\n{text}\n")
    with pytest.raises(TraceError, match=r"r\.jsonl: line 3: is not a turn") as caught:
        read_turns(path)
    assert "--records" in (caught.value.hint or "")


def test_missing_file_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.jsonl: cannot be read"):
        read_turns(tmp_path / "none.jsonl")
