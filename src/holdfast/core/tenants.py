"""Tenants: fairness domains, identified by `cache_salt`, and their service so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Account", "Fairness", "Tenant", "Tenants", "account_name"]

_MOST_IDLE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Who is served in turn, and how much.

    Attributes:
        by: `tenants` serves tenants by weight, `sessions` also the sessions of each tenant alike;
            `off` goes by arrival alone.
        weights: Weights of tenants by name (> 0); all others have 1.
    """

    by: Literal["tenants", "sessions", "off"] = "tenants"
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class Account:
    """What a tenant, or a session inside its tenant, has been served.

    Attributes:
        served_s: Engine time of its turns over its weight, lifted when turns of it wait again (s,
            >= 0).
        num_waiting: Its turns that wait (count).
    """

    served_s: float = 0.0
    num_waiting: int = 0


class _Waiting:
    """Accounts with waiting turns; lifts those that join them."""

    __slots__ = ("_accounts", "_last_s")

    def __init__(self) -> None:
        self._accounts: dict[Account, None] = {}
        self._last_s = 0.0

    def join(self, account: Account) -> None:
        """Count a turn that waits. Mutates the account; O(accounts) for its first."""
        if not account.num_waiting:
            others = (other.served_s for other in self._accounts)
            account.served_s = max(account.served_s, min(others, default=self._last_s))
            self._accounts[account] = None
        account.num_waiting += 1

    def quit(self, account: Account) -> None:
        """Uncount a turn that waits no more. Mutates the account."""
        account.num_waiting = max(account.num_waiting - 1, 0)
        if not account.num_waiting and account in self._accounts:
            del self._accounts[account]
            self._last_s = account.served_s


@dataclass(slots=True, eq=False)
class Tenant(Account):
    """A fairness domain, identified by `cache_salt`.

    Attributes:
        name: Unique; see `account_name`.
        weight: Its part, relative to others' (> 0).
        num_turns: Its turns in the engine (count).
        has_own_order: Whether its hints give its turns priorities.
        sessions: Accounts of its sessions with waiting turns.
    """

    name: str = ""
    weight: float = 1.0
    num_turns: int = 0
    has_own_order: bool = False
    sessions: _Waiting = field(default_factory=_Waiting)


class Tenants:
    """Counts the engine time that each tenant, and each session inside it, has had.

    Among those with waiting turns the one served least is next. One whose turns wait again is
    lifted to the least served of them, or to the last that waited: none saves up service while it
    asks for none. So of two that always have turns waiting, neither gets more than its part beyond
    one turn's engine time over its weight. Several engines may share one account.

    Source: virtual token counter, Sheng et al., Fairness in Serving Large Language Models,
    OSDI 2024.
    Differs: counts learned engine time, without what is resident, instead of tokens; decoding
    counts as a turn's mean; a second level inside each tenant; orders only turns that must be
    computed anew, and never beyond the bound on waiting.

    Args:
        fairness: Who is served in turn, and how much.

    Attributes:
        fairness: See the argument.
    """

    def __init__(self, fairness: Fairness | None = None) -> None:
        self.fairness = fairness or Fairness()
        self._waiting = _Waiting()
        self._active: dict[str, Tenant] = {}
        self._idle: dict[str, Tenant] = {}

    def enter(self, name: str, session: Account | None = None) -> Tenant:
        """Count a turn that has arrived and waits. Mutates its accounts.

        Args:
            name: Its `cache_salt`.
            session: The account of its session, if there is one.
        """
        name = account_name(name)
        tenant = self._active.get(name) or self._idle.pop(name, None)
        if tenant is None:
            tenant = Tenant(name=name, weight=self.fairness.weights.get(name, 1.0))
        self._active[name] = tenant
        tenant.num_turns += 1
        self.wait(tenant, session)
        return tenant

    def wait(self, tenant: Tenant, session: Account | None = None) -> None:
        """Count a turn that waits, again after a preemption. Mutates its accounts."""
        self._waiting.join(tenant)
        if session is not None:
            tenant.sessions.join(session)

    def start(self, tenant: Tenant, session: Account, seconds: float) -> None:
        """Charge a turn that starts. Mutates its accounts.

        Args:
            tenant: The turn's.
            session: The turn's.
            seconds: Engine time that it is expected to take (s).
        """
        if self.fairness.by != "off":
            tenant.served_s += seconds / tenant.weight
        if self.fairness.by == "sessions":
            session.served_s += seconds
        self._quit(tenant, session)

    def leave(self, tenant: Tenant, session: Account | None = None, *, waits: bool = True) -> None:
        """Uncount a turn that has left the engine. Mutates its accounts.

        Args:
            tenant: The turn's.
            session: The turn's.
            waits: Whether it has left without having started.
        """
        if waits:
            self._quit(tenant, session)
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

    def known(self) -> list[Tenant]:
        """Tenants that are remembered, those with turns in the engine first. Pure."""
        return [*self._active.values(), *self._idle.values()]

    def clear(self) -> None:
        """Uncount all turns; what was served is kept. Mutates."""
        self._waiting = _Waiting()
        for tenant in list(self._active.values()):
            tenant.num_turns, tenant.num_waiting = 1, 0
            tenant.sessions = _Waiting()
            self.leave(tenant, waits=False)

    def _quit(self, tenant: Tenant, session: Account | None) -> None:
        self._waiting.quit(tenant)
        if session is not None:
            tenant.sessions.quit(session)


def account_name(cache_salt: str) -> str:
    """The tenant that a salt is of: what comes before a colon. Pure.

    A gateway puts a client's own salt after its tenant's name.
    """
    return cache_salt.partition(":")[0]
