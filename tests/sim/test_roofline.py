"""Derived cost profiles: hand-worked numbers and published measurements."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.sim.roofline import (
    Efficiency,
    EngineShape,
    Hardware,
    ModelFigures,
    RooflineFigures,
    roofline_profile,
)

# Round figures, so that each expected number below is hand-worked.
GPU = Hardware(
    name="gpu",
    num_gpus=1,
    peak_flops=1e12,
    memory_bytes_per_s=1e9,
    memory_bytes=10_000_000,
    host_link_bytes_per_s=1e8,
    disk_bytes_per_s=1e7,
)
DENSE = ModelFigures(
    name="dense",
    num_parameters=1_400_000,
    num_layers=10,
    hidden_size=100,
    num_heads=4,
    num_kv_heads=2,
    head_dim=25,
    vocab_size=2000,  # 200,000 parameters in each embedding
)
MIXTURE = msgspec.structs.replace(
    DENSE,
    num_parameters=3_400_000,
    num_expert_parameters=2_000_000,
    num_experts=8,
    num_experts_per_token=2,
)
ENGINE = EngineShape(
    block_size_tokens=16,
    max_num_seqs=4,
    max_num_batched_tokens=64,
    activation_reserve_bytes=1_000_000,
    gpu_memory_utilization=0.5,
)
IDEAL = Efficiency(
    prefill_flops_ratio=1.0,
    attention_flops_ratio=1.0,
    memory_ratio=1.0,
    link_ratio=1.0,
    step_overhead_s=0.0,
    all_reduce_s=0.0,
    sequence_overhead_s=0.0,
)


def derived(
    hardware: Hardware = GPU,
    model: ModelFigures = DENSE,
    engine: EngineShape = ENGINE,
    efficiency: Efficiency = IDEAL,
) -> CostProfile:
    return roofline_profile(
        RooflineFigures(
            name="derived",
            summary="by hand",
            sources=("here",),
            hardware=hardware,
            model=model,
            engine=engine,
            efficiency=efficiency,
        )
    )


def two(hardware: Hardware = GPU) -> Hardware:
    return msgspec.structs.replace(hardware, num_gpus=2, gpu_link_bytes_per_s=1e8)


def test_step_reads_weights_without_input_embedding() -> None:
    # (1.4 M - 0.2 M) * 2 bytes at 1 GB/s
    assert derived().step_base_s == pytest.approx(2.4e-3)


def test_prompt_token_computes_without_embeddings() -> None:
    # 2 * (1.4 M - 0.4 M) at 1 TFLOP/s
    assert derived().prefill_s_per_token == pytest.approx(2e-6)


def test_attention_multiplies_twice_in_each_head() -> None:
    # 4 * 10 layers * 4 heads * 25 at 1 TFLOP/s
    assert derived().prefill_s_per_token_context == pytest.approx(4e-9)


def test_decode_reads_kv_of_its_context() -> None:
    # 2 (K, V) * 10 layers * 2 heads * 25 * 2 bytes = 2000 bytes at 1 GB/s
    assert derived().kv_bytes_per_token == 2000
    assert derived().decode_s_per_context_token == pytest.approx(2e-6)


def test_kv_capacity_is_remaining_memory_in_whole_blocks() -> None:
    # 10 MB / 2 - 2.8 MB - 1 MB = 1.2 MB; 600 tokens, 37 blocks of 16
    assert derived().kv_tokens == 592


def test_prompt_tokens_hidden_until_longer_than_weight_read() -> None:
    profile = derived()
    assert profile.hidden_prefill_tokens == 1200  # 2.4 ms of reading at 2 us a token
    lone = msgspec.structs.replace(profile, prefill_s_per_token_context=0.0)
    assert lone.step_time_s([(1200, 0)]) == pytest.approx(2.4e-3)
    assert lone.step_time_s([(3600, 0)]) == pytest.approx(3600 * 2e-6)


def test_efficiencies_and_overheads_applied() -> None:
    efficiency = Efficiency(
        prefill_flops_ratio=0.5,
        attention_flops_ratio=0.25,
        memory_ratio=0.8,
        link_ratio=0.5,
        step_overhead_s=1e-3,
        layer_overhead_s=1e-4,
        sequence_overhead_s=3e-5,
    )
    profile = derived(efficiency=efficiency)
    assert profile.step_base_s == pytest.approx(3e-3 + 1e-3 + 10 * 1e-4)
    assert profile.prefill_s_per_token == pytest.approx(4e-6)
    assert profile.prefill_s_per_token_context == pytest.approx(16e-9)
    assert profile.decode_s_per_context_token == pytest.approx(2.5e-6)
    assert profile.decode_s_per_seq == 3e-5
    assert profile.host_link_bytes_per_s == 5e7


FP8_GPU = msgspec.structs.replace(GPU, fp8_peak_flops=4e12)
FP8 = msgspec.structs.replace(DENSE, bytes_per_weight=1.0, bytes_per_kv=1.0)


def test_fp8_weights_multiply_at_fp8_peak() -> None:
    profile = derived(FP8_GPU, FP8)
    assert profile.prefill_s_per_token == pytest.approx(2e6 / 4e12)
    assert profile.step_base_s == pytest.approx(1.2e-3)
    # Half the bytes of KV, and attention at the 16-bit peak unless the model says otherwise
    assert profile.kv_bytes_per_token == 1000
    assert profile.decode_s_per_context_token == pytest.approx(1e-6)
    assert profile.prefill_s_per_token_context == pytest.approx(4e-9)
    # 10 MB / 2 - 1.4 MB - 1 MB = 2.6 MB; 2600 tokens, 162 blocks
    assert profile.kv_tokens == 2592


def test_fp8_attention_multiplies_at_fp8_peak() -> None:
    attention = msgspec.structs.replace(DENSE, bytes_per_attention=1.0)
    profile = derived(FP8_GPU, attention)
    assert profile.prefill_s_per_token_context == pytest.approx(1e-9)
    assert profile.prefill_s_per_token == pytest.approx(2e-6)


def test_fp8_runs_at_16_bit_peak_where_gpu_has_no_other() -> None:
    assert derived(GPU, FP8).prefill_s_per_token == pytest.approx(2e-6)


def test_fp8_peak_does_not_change_16_bit_models() -> None:
    assert derived(FP8_GPU, DENSE) == derived(GPU, DENSE)


def test_gpus_exchange_16_bit_activations_of_fp8_models() -> None:
    profile = derived(two(FP8_GPU), FP8)
    assert profile.prefill_s_per_token == pytest.approx(2e6 / 8e12 + 20 * 200 / 1e8)


def test_two_gpus_halve_the_work_and_add_all_reduces() -> None:
    efficiency = msgspec.structs.replace(IDEAL, all_reduce_s=1e-5)
    profile = derived(two(), efficiency=efficiency)
    # 2 all-reduces in each of 10 layers
    assert profile.step_base_s == pytest.approx(1.2e-3 + 20 * 1e-5)
    # 20 all-reduces * 100 values * 2 bytes, sent once over 100 MB/s (2 * (n - 1) / n is 1)
    assert profile.prefill_s_per_token == pytest.approx(1e-6 + 20 * 200 / 1e8)
    assert profile.prefill_s_per_token_context == pytest.approx(2e-9)
    assert profile.decode_s_per_context_token == pytest.approx(1e-6)
    assert profile.host_link_bytes_per_s == 2e8
    # 2 * (5 MB - 1.4 MB - 1 MB) = 5.2 MB; 2600 tokens, 162 blocks
    assert profile.kv_tokens == 2592


def test_mixture_computes_active_and_reads_needed_experts() -> None:
    profile = derived(msgspec.structs.replace(GPU, memory_bytes=20_000_000), MIXTURE)
    assert MIXTURE.num_active_parameters == 1_400_000 + 500_000
    assert profile.prefill_s_per_token == pytest.approx(2 * 1_500_000 / 1e12)
    assert profile.step_base_s == pytest.approx(2.4e-3)
    assert profile.sparse_read_s == pytest.approx(4e-3)
    assert profile.sparse_share_per_token == 0.25
    # One sequence reads a quarter of the experts, a long prompt all of them.
    assert profile.step_time_s([(1, 1)]) == pytest.approx(2.4e-3 + 1e-3 + 2e-6)
    assert profile.hidden_prefill_tokens == int(6.4e-3 / 3e-6)


def test_model_that_does_not_fit_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory_bytes is 7000000: no KV fits"):
        derived(msgspec.structs.replace(GPU, memory_bytes=7_000_000))


def test_indivisible_kv_heads_refused() -> None:
    with pytest.raises(ConfigError, match="num_gpus is 4"):
        derived(msgspec.structs.replace(two(), num_gpus=4))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("hardware", "peak_flops", 0),
        ("hardware", "memory_bytes_per_s", -1),
        ("hardware", "fp8_peak_flops", -1),
        ("model", "bytes_per_attention", 0),
        ("hardware", "num_gpus", 2),  # without a link between them
        ("model", "num_layers", 0),
        ("model", "num_parameters", 1),
        ("model", "num_experts", 8),  # without parameters in them
        ("engine", "max_num_seqs", 0),
        ("engine", "gpu_memory_utilization", 1.1),
        ("engine", "activation_reserve_bytes", -1),
        ("efficiency", "memory_ratio", 0),
        ("efficiency", "memory_ratio", 1.01),
        ("efficiency", "step_overhead_s", -1e-3),
        ("model", "layers", 3),
    ],
)
def test_impossible_figure_error_names_the_file(
    section: str, key: str, value: float, tmp_path: Path
) -> None:
    content = {
        "name": "n",
        "summary": "s",
        "sources": ["here"],
        "hardware": msgspec.structs.asdict(GPU),
        "model": msgspec.structs.asdict(DENSE),
        "engine": msgspec.structs.asdict(ENGINE),
        "efficiency": msgspec.structs.asdict(IDEAL),
    }
    content[section] = {**content[section], key: value}  # type: ignore[dict-item]
    path = tmp_path / "figures.json"
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(ConfigError, match=r"figures\.json"):
        load_profile(path)


def shipped_figures() -> dict[str, RooflineFigures]:
    directory = resources.files("holdfast.sim").joinpath("profiles")
    contents = (tomllib.loads(file.read_text(encoding="utf-8")) for file in directory.iterdir())
    figures = [
        msgspec.convert(content, RooflineFigures) for content in contents if "hardware" in content
    ]
    return {one.name: one for one in figures}


def test_gpu_figures_equal_in_every_file() -> None:
    seen: dict[str, Hardware] = {}
    for figures in shipped_figures().values():
        alone = msgspec.structs.replace(figures.hardware, num_gpus=1, gpu_link_bytes_per_s=0.0)
        assert seen.setdefault(alone.name, alone) == alone


@pytest.mark.parametrize(
    ("name", "parameters_b", "active_b"),
    [
        ("h100-llama3.1-8b", 8.03, 8.03),
        ("2xh200-qwen2.5-coder-32b", 32.8, 32.8),
        ("h200-qwen3-coder-30b-a3b", 30.5, 3.35),
    ],
)
def test_model_sizes_match_their_cards(name: str, parameters_b: float, active_b: float) -> None:
    model = shipped_figures()[name].model
    assert model.num_parameters / 1e9 == pytest.approx(parameters_b, rel=2e-3)
    assert model.num_active_parameters / 1e9 == pytest.approx(active_b, rel=2e-3)


H100 = "h100-llama3.1-8b"
COPY = msgspec.structs.replace
A100_40 = {"peak_flops": 312e12, "memory_bytes_per_s": 1.555e12, "memory_bytes": 42_300_000_000}
A100_80 = {"peak_flops": 312e12, "memory_bytes_per_s": 2.039e12}


def elsewhere(name: str, **hardware: float) -> CostProfile:
    figures = shipped_figures()[name]
    return roofline_profile(COPY(figures, hardware=COPY(figures.hardware, **hardware)))


# Published measurements; docs/profiles.md has their sources, and others with larger errors.
def test_h100_llama_decode_within_tenth_of_published() -> None:
    measured_s = {1: 6.48e-3, 4: 6.59e-3}  # vLLM 0.21, short chats
    for batch, seconds in measured_s.items():
        step_s = load_profile(H100).step_time_s([(1, 300)] * batch)
        assert step_s == pytest.approx(seconds, rel=0.1)


def test_a100_llama_decode_within_tenth_of_published() -> None:
    step_s = elsewhere(H100, **A100_40).step_time_s([(1, 1088)])
    assert step_s == pytest.approx(1 / 75, rel=0.1)


def test_a100_mixture_decode_within_fifth_of_published() -> None:
    profile = elsewhere("h200-qwen3-coder-30b-a3b", **A100_80)
    assert profile.step_time_s([(1, 128)]) == pytest.approx(9.6e-3, rel=0.2)


def test_h100_llama_kv_capacity_matches_vllm() -> None:
    reported_tokens = 51.38 * 2**30 / 131_072
    assert load_profile(H100).kv_tokens == pytest.approx(reported_tokens, rel=0.01)
