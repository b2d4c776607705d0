"""What each tenant has been served, so that none lives at the expense of the others."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tenant", "Tenants"]

_MOST_IDLE = 1024


@dataclass(slots=True, eq=False)
class Tenant:
    """Whoever must not pay for what others send.

    Attributes:
        name: Unique.
        served_s: Engine time its turns were given, made up for when it was idle (s, >= 0).
        num_turns: Its turns in the engine (count).
    """

    name: str = ""
    served_s: float = 0.0
    num_turns: int = 0


class Tenants:
    """All tenants, and what they have been served of the engine.

    Among those with turns in the engine the one served least is next. A tenant that comes back is
    lifted to the least served of them: nobody saves up service by staying away.

    Source: virtual token counter, Sheng et al., Fairness in Serving Large Language Models,
    OSDI 2024.
    Differs: counts engine time as learned, what is cached not included, instead of tokens; orders
    only turns that must be computed anew, and never beyond the bound on waiting.
    """

    def __init__(self) -> None:
        self._active: dict[str, Tenant] = {}
        self._idle: dict[str, Tenant] = {}

    def enter(self, name: str) -> Tenant:
        """A turn of the tenant has arrived. Mutates the tenant."""
        tenant = self._active.get(name)
        if tenant is None:
            tenant = self._idle.pop(name, None) or Tenant(name)
            least_s = min((other.served_s for other in self._active.values()), default=0.0)
            tenant.served_s = max(tenant.served_s, least_s)
            self._active[name] = tenant
        tenant.num_turns += 1
        return tenant

    def leave(self, tenant: Tenant) -> None:
        """One of its turns has left the engine. Mutates the tenant."""
        tenant.num_turns -= 1
        if tenant.num_turns > 0:
            return
        self._active.pop(tenant.name, None)
        self._idle[tenant.name] = tenant
        if len(self._idle) > _MOST_IDLE:
            self._idle.pop(next(iter(self._idle)))

    def clear(self) -> None:
        """No turn is in the engine; what was served is kept."""
        for tenant in list(self._active.values()):
            tenant.num_turns = 1
            self.leave(tenant)
