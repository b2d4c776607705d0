"""Holdfast: return-rate eviction, working-set admission, recurring agents."""

from __future__ import annotations

from typing import ClassVar

from holdfast.policies.base import PolicySpec
from holdfast.policies.ours.recurring_agents_prefetch import RecurringAgentsPrefetch
from holdfast.policies.ours.return_rate_eviction import ReturnRateEviction
from holdfast.policies.ours.working_set_admission import WorkingSetAdmission

__all__ = ["Holdfast"]


class Holdfast(ReturnRateEviction, WorkingSetAdmission, RecurringAgentsPrefetch):
    """The product `return-rate+working-set+recurring-agents`."""

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="holdfast",
        summary="Evicts by the expected returns of the sessions that use a node; admits what fits "
        "beside reservations, with a bound on how long a turn is passed.",
        source="Belady 1966; Denning 1968; CacheWise (arXiv 2606.16824)",
        differs="Returns are learned online; priorities of shared nodes add up; reservations and a "
        "wait bound decide which turns run.",
    )
