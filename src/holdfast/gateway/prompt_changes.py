"""Finds what makes prompts not extend their session's last one."""

from __future__ import annotations

from typing import Final, NamedTuple

from holdfast.core.identity import Identity
from holdfast.core.prompt_change import ChangeKind
from holdfast.core.prompt_history import PromptHistory, stream_of
from holdfast.core.request_body import RequestBody

__all__ = ["ChangedPrompt", "PromptChanges"]

_UNKNOWN: Final = "unknown"


class ChangedPrompt(NamedTuple):
    """A prompt that does not extend its session's last one.

    Attributes:
        kind: What changed.
        client: Name of the client.
        lost_bytes: What is to be computed again (bytes).
    """

    kind: ChangeKind
    client: str
    lost_bytes: int


class PromptChanges:
    """Finds them; knows fingerprints of prompts only.

    Args:
        lease_s: Sessions idle for longer are forgotten (s).
    """

    def __init__(self, lease_s: float) -> None:
        self._history = PromptHistory(lease_s=lease_s)

    def find(self, body: RequestBody, identity: Identity, now_s: float) -> ChangedPrompt | None:
        """What changed in a prompt, as far as its text tells. Mutates the memory."""
        session = stream_of(identity.session_id, identity.tenant, body)
        change = self._history.change(session, body, now_s)
        if change is None or not change.lost_bytes:
            return None
        return ChangedPrompt(change.kind, identity.client or _UNKNOWN, change.lost_bytes)
