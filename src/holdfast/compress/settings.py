"""Constants of the methods, at the values that their authors publish."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from holdfast.compress.value_norms import Normalization

__all__ = ["Settings"]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set of a method; each uses some of it.

    Attributes:
        window: Newest tokens whose attention scores the others, and which always stay (count).
            32 in DefensiveKV's code for every method, 64 in kvpress: a comparison needs one.
        kernel: Width of pooling (odd count).
        aggregate: What of the attention of a window's queries and of a KV head's query heads
            counts: their `mean`, or their `max`, the worst case.
        floor: Whether no score is below its head's mean.
        normalization: What norms of values are divided by, see `value_norms.normalized`.
        coverage: Share of a head's attention, the window's included, whose entries stay before
            others; 0 leaves the stage out.
        safeguard: Share of the average budget that each head has in any case.
        first_share: Share of a head's budget that attention alone decides, where norms of values
            decide on the rest.
        num_sinks: Oldest tokens that stay (count).
        scope: Among what entries compete: within a `head`, a `layer`, or in `all` layers.
            Empty: as the method has it.
        seed: Of random scores.
        gates: File of trained retention gates.
        lookahead: Steps that scores of gates look ahead (count).
        min_entries: The best entries of each head that stay in any case (count).
        as_published: Compute what the authors' code does where that is a defect.
    """

    window: Annotated[int, Meta(ge=1)] = 32
    kernel: Annotated[int, Meta(ge=1)] = 5
    aggregate: Literal["max", "mean"] = "max"
    floor: bool = True
    normalization: Normalization = "heads"
    coverage: Share = 0.9
    safeguard: Share = 0.2
    first_share: Share = 0.5
    num_sinks: Annotated[int, Meta(ge=0)] = 4
    scope: Literal["", "head", "layer", "all"] = ""
    seed: int = 0
    gates: str = ""
    lookahead: Annotated[int, Meta(ge=1)] = 1
    min_entries: Annotated[int, Meta(ge=0)] = 0
    as_published: bool = False

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}, expected an odd number")
