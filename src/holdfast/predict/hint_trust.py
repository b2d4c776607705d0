"""Whether what a tenant says about its pauses is better than what is learned."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

__all__ = ["HintTrust"]

_MAX_TENANTS: Final = 1024
_MEMORY: Final = 0.1
_TOLERANCE: Final = math.log(2.0)
_SHORTEST_S: Final = 0.1  # shorter pauses count as this long


@dataclass(slots=True)
class _Errors:
    """Recent mean errors of one tenant (log of the factor)."""

    told: float = 0.0
    predicted: float = 0.0


class HintTrust:
    """Compares tenants' hints on pauses with predictions, once they have ended.

    A tenant is trusted at first, and while its hints have been no worse than predictions by more
    than a factor of two. Hints that are not used are compared too, so trust comes back.
    """

    def __init__(self) -> None:
        self._errors: OrderedDict[str, _Errors] = OrderedDict()

    def trusts(self, tenant: str) -> bool:
        """Whether the tenant's hints on pauses are used. Pure."""
        errors = self._errors.get(tenant)
        return errors is None or errors.told <= errors.predicted + _TOLERANCE

    def observe(self, tenant: str, told_s: float, predicted_s: float, actual_s: float) -> None:
        """Learn from a pause that has ended, or lasted far longer than told. Mutates.

        Args:
            tenant: The fairness domain.
            told_s: The hint (s).
            predicted_s: What was predicted without it (s).
            actual_s: The pause (s).
        """
        errors = self._errors.pop(tenant, None) or _Errors()
        self._errors[tenant] = errors
        if len(self._errors) > _MAX_TENANTS:
            self._errors.popitem(last=False)
        errors.told += _MEMORY * (_error(told_s, actual_s) - errors.told)
        errors.predicted += _MEMORY * (_error(predicted_s, actual_s) - errors.predicted)


def _error(expected_s: float, actual_s: float) -> float:
    return abs(math.log(max(expected_s, _SHORTEST_S) / max(actual_s, _SHORTEST_S)))
