"""Tenants: fairness domains, identified by `cache_salt`, and their service so far."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tenant", "Tenants"]

_MOST_IDLE = 1024


@dataclass(slots=True, eq=False)
class Tenant:
    """A fairness domain, identified by `cache_salt`.

    Attributes:
        name: Unique.
        served_s: Engine time of its turns, lifted when it returns from idleness (s, >= 0).
        num_turns: Its turns in the engine (count).
        has_own_order: Whether its hints give its turns priorities.
    """

    name: str = ""
    served_s: float = 0.0
    num_turns: int = 0
    has_own_order: bool = False


class Tenants:
    """Counts the engine time that each tenant has had.

    Among tenants with turns in the engine the one served least is next. A tenant that returns is
    lifted to the least served of them: idleness saves up no service.

    Source: virtual token counter, Sheng et al., Fairness in Serving Large Language Models,
    OSDI 2024.
    Differs: counts learned engine time, without what is resident, instead of tokens; orders
    only turns that must be computed anew, and never beyond the bound on waiting.
    """

    def __init__(self) -> None:
        self._active: dict[str, Tenant] = {}
        self._idle: dict[str, Tenant] = {}

    def enter(self, name: str) -> Tenant:
        """Count a turn that has arrived. Mutates the tenant."""
        tenant = self._active.get(name)
        if tenant is None:
            tenant = self._idle.pop(name, None) or Tenant(name)
            least_s = min((other.served_s for other in self._active.values()), default=0.0)
            tenant.served_s = max(tenant.served_s, least_s)
            self._active[name] = tenant
        tenant.num_turns += 1
        return tenant

    def leave(self, tenant: Tenant) -> None:
        """Uncount a turn that has left the engine. Mutates the tenant."""
        tenant.num_turns -= 1
        if tenant.num_turns > 0:
            return
        self._active.pop(tenant.name, None)
        self._idle[tenant.name] = tenant
        if len(self._idle) > _MOST_IDLE:
            self._idle.pop(next(iter(self._idle)))

    def active(self) -> set[str]:
        """Names of the tenants with turns in the engine. Pure."""
        return set(self._active)

    def clear(self) -> None:
        """Uncount all turns; what was served is kept. Mutates."""
        for tenant in list(self._active.values()):
            tenant.num_turns = 1
            self.leave(tenant)
