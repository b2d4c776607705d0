"""A fingerprint of a workload: equal for runs of the same sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from holdfast.traces.record import Session

__all__ = ["sessions_digest"]


def sessions_digest(sessions: Iterable[Session]) -> str:
    """Hexadecimal SHA-256 of all session data that a replay uses, in order; pure."""
    digest = hashlib.sha256()
    for session in sessions:
        start = "" if session.start_s is None else f"|{session.start_s!r}"
        digest.update(f"{session.session_id}|{session.block_size_tokens}{start}\n".encode())
        for turn in session.turns:
            digest.update(
                f"{turn.gap_s!r}|{turn.prompt_tokens}|{turn.output_tokens}|{turn.ended_by}|"
                f"{turn.tool_name}|{len(turn.block_ids)}\n".encode()
            )
            digest.update(np.asarray(turn.block_ids, dtype="<i8").tobytes())
    return digest.hexdigest()
