"""Makes Holdfast's policy call every paused session back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.policies.ours.holdfast import Holdfast


def _coming(self: Any) -> Iterable[Any]:
    return (session.tail for session in self.scene.sessions if session.state.is_paused)


Holdfast.coming = _coming  # type: ignore[method-assign]
