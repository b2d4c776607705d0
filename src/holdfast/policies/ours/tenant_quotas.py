"""Quotas of tenants: requests and tokens a minute, requests at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from holdfast.policies.requests import (
    AnswerEnded,
    Refused,
    Request,
    RequestClosed,
    RequestEvent,
    RequestPassed,
    RequestPolicy,
)
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["Quota", "TenantQuotas", "TenantQuotasSettings"]

_MINUTE_S: Final = 60.0
_BYTES_PER_TOKEN: Final = 4.0
_BUSY_S: Final = 1.0  # until another request may be tried, where too many are open
_MOST_TENANTS: Final = 4096
_ROUNDING: Final = 1e-6

_Rate = Annotated[float, Meta(gt=0)] | None
_Count = Annotated[int, Meta(ge=1)] | None


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tenant may ask for; None bounds nothing.

    Attributes:
        requests_per_min: Requests a minute, of which a minute's may come at once (> 0).
        tokens_per_min: Tokens of prompts and answers a minute, likewise (> 0).
        max_concurrent: Requests that are open at once (count, >= 1).
    """

    requests_per_min: _Rate = None
    tokens_per_min: _Rate = None
    max_concurrent: _Count = None


class TenantQuotasSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `TenantQuotas`.

    Attributes:
        requests_per_min: See `Quota`; of each tenant without a quota of its own.
        tokens_per_min: Likewise.
        max_concurrent: Likewise.
        tenants: Quotas by tenant, whole: nothing of the above is added.
    """

    requests_per_min: _Rate = None
    tokens_per_min: _Rate = None
    max_concurrent: _Count = None
    tenants: dict[str, Quota] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class _Bucket:
    """A token bucket that holds a minute's quota and begins full.

    Attributes:
        capacity: A minute's quota (> 0).
        level: What was left at `at_s`; < 0 after more was taken than there was.
        at_s: When (s).
    """

    capacity: float
    level: float
    at_s: float

    def level_at(self, now_s: float) -> float:
        """What is left now. Pure."""
        refilled = max(now_s - self.at_s, 0.0) * self.capacity / _MINUTE_S
        return min(self.level + refilled, self.capacity)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Time until so much may be taken, a minute's at most (s). Pure."""
        lacking = min(amount, self.capacity) - self.level_at(now_s)
        return lacking * _MINUTE_S / self.capacity if lacking > _ROUNDING else 0.0

    def take(self, amount: float, now_s: float) -> None:
        """Take so much, which may leave less than nothing; < 0 gives back. Mutates."""
        self.level = min(self.level_at(now_s) - amount, self.capacity)
        self.at_s = max(now_s, self.at_s)


class _Account:
    """What a tenant has asked for."""

    __slots__ = ("num_open", "requests", "tokens")

    def __init__(self, quota: Quota, now_s: float) -> None:
        self.requests = _bucket(quota.requests_per_min, now_s)
        self.tokens = _bucket(quota.tokens_per_min, now_s)
        self.num_open = 0


class TenantQuotas(RequestPolicy):
    """Refuses requests beyond a tenant's quota, and says when they may come again.

    A request's tokens are guessed from its bytes when it passes, and set right by what its answer
    says; an answer that does not say leaves the guess, without its own tokens. So one that is
    longer than guessed is paid for by later ones.

    Source: token bucket, Turner, IEEE Communications Magazine 24(10), 1986.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="tenant-quotas",
        summary="Refuses requests beyond a tenant's quota of requests, tokens or open requests.",
        source="token bucket, Turner 1986",
        settings=TenantQuotasSettings,
    )
    settings: TenantQuotasSettings

    def __init__(self, settings: TenantQuotasSettings) -> None:
        super().__init__(settings)
        self._default = Quota(
            requests_per_min=settings.requests_per_min,
            tokens_per_min=settings.tokens_per_min,
            max_concurrent=settings.max_concurrent,
        )
        self._accounts: dict[str, _Account] = {}

    def refuse(self, request: Request) -> Refused | None:
        """Refuse what is beyond the quota; the longest wait counts. Pure."""
        quota = self._quota_of(request)
        account = self._accounts.get(request.identity.tenant) or _Account(quota, request.now_s)
        wait_s, what = max(_waits(quota, account, request), default=(0.0, ""))
        if wait_s <= 0.0:
            return None
        message = f"over the quota of {what}; send it again in {math.ceil(wait_s)} s"
        return Refused(message, 429, retry_after_s=wait_s)

    def observe(self, event: RequestEvent) -> None:
        """Count requests and tokens. Mutates."""
        match event:
            case RequestPassed(request=request):
                account = self._account_of(request)
                account.num_open += 1
                if account.requests is not None:
                    account.requests.take(1.0, request.now_s)
                if account.tokens is not None:
                    account.tokens.take(_guess(request), request.now_s)
            case AnswerEnded(request=request, prompt_tokens=int(prompt_tokens)):
                tokens = self._account_of(request).tokens
                if tokens is not None:
                    answered = prompt_tokens + (event.output_tokens or 0)
                    tokens.take(answered - _guess(request), event.time_s)
            case RequestClosed(request=request):
                account = self._account_of(request)
                account.num_open = max(account.num_open - 1, 0)
            case _:
                pass

    def _quota_of(self, request: Request) -> Quota:
        return self.settings.tenants.get(request.identity.tenant, self._default)

    def _account_of(self, request: Request) -> _Account:
        tenant = request.identity.tenant
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account(self._quota_of(request), request.now_s)
            if len(self._accounts) > _MOST_TENANTS:
                idle = (name for name, each in self._accounts.items() if not each.num_open)
                self._accounts.pop(next(idle, tenant), None)
        return account


def _waits(quota: Quota, account: _Account, request: Request) -> Iterator[tuple[float, str]]:
    """How long each part of a quota makes a request wait (s), and what it is."""
    if account.requests is not None:
        what = f"{quota.requests_per_min:g} requests a minute"
        yield account.requests.wait_s(1.0, request.now_s), what
    if account.tokens is not None:
        what = f"{quota.tokens_per_min:g} tokens a minute"
        yield account.tokens.wait_s(_guess(request), request.now_s), what
    if quota.max_concurrent is not None and account.num_open >= quota.max_concurrent:
        yield _BUSY_S, f"{quota.max_concurrent} requests at once"


def _guess(request: Request) -> float:
    return len(request.body.text) / _BYTES_PER_TOKEN


def _bucket(per_min: float | None, now_s: float) -> _Bucket | None:
    return None if per_min is None else _Bucket(per_min, per_min, now_s)
