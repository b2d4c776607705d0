"""Prompts are compared in order, beside the requests, and skipped where there is no space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core.identity import Identity
from holdfast.core.prompt_history import PromptHistory
from holdfast.core.request_body import RequestBody
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.prompt_changes import PromptChanges, SentPrompt

LEASE_S = 60.0
LONG = "word " * 400


class Rig:
    """A queue of prompts, and its counts."""

    def __init__(self, **options: Any) -> None:
        self.metrics = GatewayMetrics()
        self.changes = PromptChanges(self.metrics.prompts, LEASE_S, **options)

    def send(self, session: str, day: str, now_s: float = 0.0, client: str = "c") -> int:
        """Add a prompt; returns its length (bytes)."""
        messages = [{"role": "user", "content": f"{LONG}. Today is {day}."}]
        body = RequestBody.parse(json.dumps({"model": "m", "messages": messages}).encode())
        assert body is not None
        self.changes.add(SentPrompt(body, Identity(session, client=client), 4.0, now_s))
        return len(body.text)

    def compare(self, now_s: float = 0.0) -> int:
        """Compare all that waits; returns the steps."""
        return sum(1 for _ in iter(lambda: self.changes.step(now_s), False))

    def counted(self, name: str, label: str = "") -> dict[str, float]:
        """Values of a metric by one of its labels."""
        samples = [each for found in self.metrics.registry.collect() for each in found.samples]
        return {
            each.labels.get(label, ""): each.value
            for each in samples
            if each.name == f"holdfast_gateway_{name}_total"
        }


def test_prompts_are_compared_in_the_order_of_sending() -> None:
    rig = Rig()
    for client, day in (("first", "2026-11-01"), ("second", "2026-11-02")):
        for session in ("a", "b"):
            rig.send(session, day, client=client)
    assert rig.counted("changed_prompts") == {}
    rig.compare()
    assert rig.changes.is_idle
    assert rig.counted("changed_prompts", "client") == {"second": 2}
    assert rig.counted("prompts") == {"": 4}


def test_a_long_prompt_is_compared_in_many_steps() -> None:
    rig = Rig()
    rig.send("a", "2026-11-01")
    first = rig.compare()
    rig.send("a", "2026-11-01")
    assert rig.compare() < first
    assert first >= 5  # one kind of text after the other


def test_a_prompt_without_space_is_skipped_and_counted() -> None:
    num_bytes = Rig().send("a", "2026-11-01")
    rig = Rig(queue_bytes=num_bytes)
    rig.send("a", "2026-11-01")
    rig.send("a", "2026-11-02")
    assert rig.counted("skipped_prompts", "reason") == {"busy": 1}
    rig.changes.step(0.0)
    rig.send("a", "2026-11-02")  # the first is not done
    assert rig.counted("skipped_prompts", "reason") == {"busy": 2}
    rig.compare()
    assert rig.counted("changed_prompts") == {}
    rig.send("a", "2026-11-03")
    rig.compare()
    assert rig.counted("changed_prompts", "change") == {
        "date": 1
    }  # since the one before those skipped
    assert rig.counted("prompts") == {"": 4}


def test_a_prompt_does_not_wait_for_longer_than_the_lease() -> None:
    rig = Rig()
    rig.send("a", "2026-11-01")
    rig.send("a", "2026-11-02", now_s=LEASE_S)
    rig.compare(now_s=LEASE_S + 1.0)
    assert rig.counted("skipped_prompts", "reason") == {"busy": 1}
    assert (rig.counted("changed_prompts"), rig.changes.is_idle) == ({}, True)


def test_a_failing_comparison_is_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    comparing = PromptHistory.comparing
    bad = {("", "bad")}

    def failing(self: PromptHistory, session: Any, *others: Any) -> Iterator[None]:
        if session in bad:
            raise RuntimeError("no")
        return comparing(self, session, *others)

    monkeypatch.setattr(PromptHistory, "comparing", failing)
    rig = Rig()
    for session in ("bad", "good", "bad", "good"):
        rig.send(session, "2026-11-01" if rig.counted("prompts")[""] < 3 else "2026-11-02")
    rig.compare()
    assert rig.counted("skipped_prompts", "reason") == {"failed": 2}
    assert rig.counted("changed_prompts", "change") == {"date": 1}
    assert [record.message for record in caplog.records] == [
        "a prompt could not be compared with its session's last one"
    ]
    assert rig.changes._queued_bytes == 0
