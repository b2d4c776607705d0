"""How many entries of a KV cache stay."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from holdfast.errors import ConfigError

__all__ = ["Budget"]

_LARGEST_DENOMINATOR = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """A share of all tokens that a cache has seen, the same rule for every method.

    Attributes:
        share: Entries to keep of each hundred, as a fraction (above 0, at most 1).
        num_tokens: Tokens that the cache has seen, evicted ones included (at least 1).

    Raises:
        ConfigError: A value is out of range.
    """

    share: float
    num_tokens: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share of the cache is {self.share:g}, expected above 0, at most 1")
        if self.num_tokens < 1:
            raise ConfigError(f"the cache has seen {self.num_tokens} tokens, expected at least 1")

    @property
    def per_head(self) -> int:
        """Entries that a KV head keeps on average (1 to `num_tokens`).

        The share is taken as the fraction that is meant: 0.29 of 100 are 29, though the product of
        floats is below that.
        """
        meant = Fraction(self.share).limit_denominator(_LARGEST_DENOMINATOR)
        return max(1, int(meant * self.num_tokens))
