"""Warm-ups in tenants' names: the hint that allows engines to make them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from holdfast.policies.requests import Request, RequestPolicy
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["WarmUps", "WarmUpsSettings"]

_FIELD: Final = "vllm_xargs"
_HINT: Final = "holdfast_warm_up"


class WarmUpsSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `WarmUps`.

    Attributes:
        tenants: Tenants that asked for warm-ups; "" is the one without keys.
    """

    tenants: Annotated[tuple[str, ...], Meta(min_length=1)] = ("",)


class WarmUps(RequestPolicy):
    """Gives requests of some tenants the hint that allows warm-ups.

    The engine that has the agent's prompts decides: it predicts, keeps its budget, computes only
    while it is idle, and counts the outcomes. A client's own word stays.

    Source: KVFlow, arXiv 2507.07400.
    Differs: prefixes are computed anew on an idle engine where no tier has them.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="warm-ups",
        summary="Asks engines for warm-ups of prompts that come next, for tenants that want them.",
        source="KVFlow, arXiv 2507.07400",
        differs="Prefixes are computed on an idle engine where no tier has them.",
        settings=WarmUpsSettings,
    )
    settings: WarmUpsSettings

    def rewrite(self, request: Request) -> bytes | None:
        """The body with the hint, for tenants that asked. Pure."""
        if request.identity.tenant not in self.settings.tenants:
            return None
        given: Any = request.body.value(_FIELD)
        if given is None:
            given = {}
        if not isinstance(given, dict) or _HINT in given:
            return None
        return request.body.with_field(_FIELD, {**given, _HINT: True})
