"""Tests of how long the last prompts of sessions are remembered."""

from __future__ import annotations

from holdfast.core.prompt_history import PromptHistory
from holdfast.core.request_body import RequestBody


def test_sessions_idle_for_longer_than_the_lease_are_forgotten() -> None:
    history = PromptHistory(lease_s=60.0)
    body = RequestBody.parse(b'{"messages": [{"role": "user", "content": "hello"}]}')
    assert body is not None
    for number in range(10):
        history.change(number, body, now_s=float(number))
    history.change(0, body, now_s=62.0)  # those of 0 s and 1 s are over; 0 is back
    assert len(history) == 9
