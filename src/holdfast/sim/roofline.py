"""Derives a cost profile from published figures of a GPU and a model.

A step reads the weights once and computes its tokens; the longer of the two hides the other.
Attention over earlier tokens is added: decode reads their KV, prefill multiplies with it. Reads run
at a share of the memory bandwidth, multiplications at a share of the tensor cores' peak. Each step
has a fixed overhead. `docs/profiles.md` has the formulas, the sources of the shares, and the errors
against published measurements.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile

__all__ = [
    "Efficiency",
    "EngineShape",
    "Hardware",
    "ModelFigures",
    "RooflineFigures",
    "roofline_profile",
]

_ALL_REDUCES_PER_LAYER: Final = 2
"""After attention and after the feed-forward part of a model that is split over GPUs."""
_BYTES_PER_ACTIVATION: Final = 2.0
"""At least; activations between layers stay 16 bit where weights have fewer."""


class _Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of groups of figures, with range checks."""

    def _check_positive(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{key} is {value!r}, expected a number above 0")

    def _check_not_negative(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{key} is {value!r}, expected a number >= 0")


class Hardware(_Figures, frozen=True, kw_only=True):
    """GPUs that serve one model together; each figure is a peak of one GPU.

    Attributes:
        name: Name of the GPU.
        num_gpus: Number of GPUs that share the model by tensor parallelism.
        peak_flops: Multiplications and additions a second, 16 bit, without sparsity.
        fp8_peak_flops: The same with operands of 8 bit; 0 where these run at the 16-bit rate.
        memory_bytes_per_s: Bandwidth of the GPU's memory.
        memory_bytes: Memory that a process can use.
        host_link_bytes_per_s: Bandwidth to host memory, in one direction.
        gpu_link_bytes_per_s: Bandwidth to the other GPUs, in one direction; unused with one GPU.
        disk_bytes_per_s: Bandwidth of the local disk.
    """

    name: str
    num_gpus: int
    peak_flops: float
    memory_bytes_per_s: float
    memory_bytes: int
    host_link_bytes_per_s: float
    disk_bytes_per_s: float
    gpu_link_bytes_per_s: float = 0.0
    fp8_peak_flops: float = 0.0

    def __post_init__(self) -> None:
        self._check_positive(
            *("num_gpus", "peak_flops", "memory_bytes_per_s", "memory_bytes"),
            *("host_link_bytes_per_s", "disk_bytes_per_s"),
        )
        self._check_not_negative("gpu_link_bytes_per_s", "fp8_peak_flops")
        if self.num_gpus > 1:
            self._check_positive("gpu_link_bytes_per_s")

    def peak_flops_for(self, bytes_per_operand: float) -> float:
        """Peak of all GPUs for products of operands of that size."""
        is_fp8 = bytes_per_operand <= 1 and self.fp8_peak_flops
        return self.num_gpus * (self.fp8_peak_flops if is_fp8 else self.peak_flops)


class ModelFigures(_Figures, frozen=True, kw_only=True):
    """Sizes of a transformer.

    Attributes:
        name: Name of the model.
        num_parameters: All parameters, embeddings and experts included.
        num_layers: Layers, each with attention and a feed-forward part.
        hidden_size: Width between the layers.
        num_heads: Query heads of a layer.
        num_kv_heads: Key and value heads of a layer.
        head_dim: Width of a head.
        vocab_size: Rows of the input embedding and of the output head.
        bytes_per_weight: 2 for 16 bit; 1 for FP8, whose products run at the FP8 peak.
        bytes_per_kv: 2 for 16 bit, 1 for FP8.
        bytes_per_attention: 1 where attention multiplies in FP8, which FP8 KV does not imply.
        num_expert_parameters: The part of `num_parameters` in routed experts.
        num_experts: Routed experts of a layer; 0 for a dense model.
        num_experts_per_token: Routed experts that a token uses.
    """

    name: str
    num_parameters: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    bytes_per_weight: float = 2.0
    bytes_per_kv: float = 2.0
    bytes_per_attention: float = 2.0
    num_expert_parameters: int = 0
    num_experts: int = 0
    num_experts_per_token: int = 0

    def __post_init__(self) -> None:
        self._check_positive(
            *("num_parameters", "num_layers", "hidden_size", "num_heads", "num_kv_heads"),
            *("head_dim", "vocab_size", "bytes_per_weight", "bytes_per_kv", "bytes_per_attention"),
        )
        self._check_not_negative("num_expert_parameters")
        if self.num_experts or self.num_expert_parameters:
            self._check_positive("num_experts", "num_expert_parameters", "num_experts_per_token")
        if self.num_expert_parameters + 2 * self.embedding_parameters > self.num_parameters:
            raise ConfigError(
                f"num_parameters is {self.num_parameters!r}, expected at least the experts' and "
                "the embeddings' together"
            )

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding; the output head has as many."""
        return self.vocab_size * self.hidden_size

    @property
    def expert_share(self) -> float:
        """Share of the experts that one token uses; 0 for a dense model."""
        return self.num_experts_per_token / self.num_experts if self.num_experts else 0.0

    @property
    def num_active_parameters(self) -> float:
        """Parameters that one token uses."""
        always = self.num_parameters - self.num_expert_parameters
        return always + self.expert_share * self.num_expert_parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        width = self.num_kv_heads * self.head_dim
        return round(2 * self.num_layers * width * self.bytes_per_kv)


class EngineShape(_Figures, frozen=True, kw_only=True):
    """Settings of the engine.

    Attributes:
        block_size_tokens: Tokens in a KV block.
        max_num_seqs: Maximum number of running requests.
        max_num_batched_tokens: Maximum tokens of one step.
        gpu_memory_utilization: Share of a GPU's memory that the engine uses (0 to 1).
        activation_reserve_bytes: The part of it that holds neither weights nor KV, on each GPU.
    """

    block_size_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    activation_reserve_bytes: int
    gpu_memory_utilization: float = 0.9

    def __post_init__(self) -> None:
        self._check_positive("block_size_tokens", "gpu_memory_utilization")
        self._check_not_negative("activation_reserve_bytes")
        if self.gpu_memory_utilization > 1:
            value = self.gpu_memory_utilization
            raise ConfigError(f"gpu_memory_utilization is {value!r}, expected at most 1")


class Efficiency(_Figures, frozen=True, kw_only=True):
    """Reached shares of the peaks, and overheads; `docs/profiles.md` has the reasons.

    Attributes:
        prefill_flops_ratio: Share of the peak that linear layers reach.
        attention_flops_ratio: Share of the peak that attention over a prompt reaches.
        memory_ratio: Share of the memory bandwidth that reads of weights or KV reach.
        link_ratio: Share of the bandwidth between GPUs and to the host.
        step_overhead_s: Overhead of a step: scheduling, launching, sampling.
        layer_overhead_s: Additional overhead of a layer: routing to experts.
        all_reduce_s: Latency of one all-reduce over the GPUs.
        sequence_overhead_s: Overhead of a sequence in a step.
    """

    prefill_flops_ratio: float = 0.55
    attention_flops_ratio: float = 0.5
    memory_ratio: float = 0.8
    link_ratio: float = 0.8
    step_overhead_s: float = 8e-4
    layer_overhead_s: float = 0.0
    all_reduce_s: float = 1e-5
    sequence_overhead_s: float = 2e-5

    def __post_init__(self) -> None:
        ratios = ("prefill_flops_ratio", "attention_flops_ratio", "memory_ratio", "link_ratio")
        self._check_positive(*ratios)
        for key in ratios:
            if getattr(self, key) > 1:
                raise ConfigError(f"{key} is {getattr(self, key)!r}, expected at most 1")
        self._check_not_negative(
            *("step_overhead_s", "layer_overhead_s", "all_reduce_s", "sequence_overhead_s")
        )


class RooflineFigures(_Figures, frozen=True, kw_only=True):
    """All figures of a profile; the layout of its file."""

    name: str
    summary: str
    sources: tuple[str, ...]
    hardware: Hardware
    model: ModelFigures
    engine: EngineShape
    efficiency: Efficiency = msgspec.field(default_factory=Efficiency)
    kind: Literal["roofline"] = "roofline"


def roofline_profile(figures: RooflineFigures) -> CostProfile:
    """Derive a cost profile; pure.

    Raises:
        ConfigError: The model does not fit, or cannot be split over the GPUs.
    """
    hardware, model = figures.hardware, figures.model
    engine, efficiency = figures.engine, figures.efficiency
    if model.num_kv_heads % hardware.num_gpus:
        raise ConfigError(
            f"num_gpus is {hardware.num_gpus}, expected a divisor of the "
            f"{model.num_kv_heads} KV heads"
        )
    read_bytes_per_s = hardware.num_gpus * hardware.memory_bytes_per_s * efficiency.memory_ratio
    # The input embedding is a lookup: only a few of its rows are read.
    dense_parameters = (
        model.num_parameters - model.num_expert_parameters - model.embedding_parameters
    )
    dense_read_s = dense_parameters * model.bytes_per_weight / read_bytes_per_s
    sparse_read_s = model.num_expert_parameters * model.bytes_per_weight / read_bytes_per_s
    compute_s_per_token = _compute_s_per_token(hardware, model, efficiency)
    return CostProfile(
        name=figures.name,
        summary=figures.summary,
        sources=figures.sources,
        kind="roofline",
        block_size_tokens=engine.block_size_tokens,
        kv_tokens=_kv_tokens(hardware, model, engine),
        kv_bytes_per_token=model.kv_bytes_per_token,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        step_base_s=dense_read_s + _overhead_s(hardware, model, efficiency),
        prefill_s_per_token=compute_s_per_token,
        prefill_s_per_token_context=_attention_s(hardware, model, efficiency),
        decode_s_per_seq=efficiency.sequence_overhead_s,
        decode_s_per_context_token=model.kv_bytes_per_token / read_bytes_per_s,
        host_link_bytes_per_s=(
            hardware.num_gpus * hardware.host_link_bytes_per_s * efficiency.link_ratio
        ),
        disk_bytes_per_s=hardware.disk_bytes_per_s,
        hidden_prefill_tokens=int((dense_read_s + sparse_read_s) / compute_s_per_token),
        sparse_read_s=sparse_read_s,
        sparse_share_per_token=model.expert_share,
    )


def _compute_s_per_token(hardware: Hardware, model: ModelFigures, efficiency: Efficiency) -> float:
    """Time of a prompt token's linear layers, and to exchange its activations."""
    # The output head runs only for the last token of a prompt.
    num_parameters = model.num_active_parameters - 2 * model.embedding_parameters
    flops_per_s = hardware.peak_flops_for(model.bytes_per_weight) * efficiency.prefill_flops_ratio
    return 2 * num_parameters / flops_per_s + _exchange_s_per_token(hardware, model, efficiency)


def _attention_s(hardware: Hardware, model: ModelFigures, efficiency: Efficiency) -> float:
    """Time of a prompt token's attention to one token of context."""
    num_flops = 4 * model.num_layers * model.num_heads * model.head_dim
    peak_flops = hardware.peak_flops_for(model.bytes_per_attention)
    return num_flops / (peak_flops * efficiency.attention_flops_ratio)


def _overhead_s(hardware: Hardware, model: ModelFigures, efficiency: Efficiency) -> float:
    all_reduces = _ALL_REDUCES_PER_LAYER * model.num_layers if hardware.num_gpus > 1 else 0
    return (
        efficiency.step_overhead_s
        + model.num_layers * efficiency.layer_overhead_s
        + all_reduces * efficiency.all_reduce_s
    )


def _exchange_s_per_token(hardware: Hardware, model: ModelFigures, efficiency: Efficiency) -> float:
    """Time to all-reduce a token's activations over the GPUs, at ring bandwidth."""
    if hardware.num_gpus == 1:
        return 0.0
    activation_bytes = model.hidden_size * max(model.bytes_per_weight, _BYTES_PER_ACTIVATION)
    rounds = 2 * (hardware.num_gpus - 1) / hardware.num_gpus
    num_bytes = _ALL_REDUCES_PER_LAYER * model.num_layers * activation_bytes * rounds
    return num_bytes / (hardware.gpu_link_bytes_per_s * efficiency.link_ratio)


def _kv_tokens(hardware: Hardware, model: ModelFigures, engine: EngineShape) -> int:
    """KV capacity beside weights and activations, in whole blocks."""
    weight_bytes = model.num_parameters * model.bytes_per_weight / hardware.num_gpus
    usable_bytes = hardware.memory_bytes * engine.gpu_memory_utilization
    kv_bytes = (usable_bytes - weight_bytes - engine.activation_reserve_bytes) * hardware.num_gpus
    num_blocks = math.floor(kv_bytes / (model.kv_bytes_per_token * engine.block_size_tokens))
    if num_blocks < 1:
        raise ConfigError(
            f"memory_bytes is {hardware.memory_bytes}: no KV fits beside "
            f"{weight_bytes / 1e9:.1f} GB of weights and the activations on each GPU"
        )
    return num_blocks * engine.block_size_tokens
