"""Makes Holdfast's policy prefetch every paused session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.policies.ours.holdfast import Holdfast


def _candidates(self: Any) -> Iterable[Any]:
    return (session.tail for session in self.context.sessions if session.state.is_paused)


Holdfast.candidates = _candidates  # type: ignore[method-assign]
