"""Requests that can never fit the KV cache."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine


def _errors(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of requests that end with an error, in order."""
    from vllm.v1.engine import FinishReason

    failed: list[str] = []
    update = rig.scheduler.update_from_output

    def note(*args: Any) -> Any:
        outputs = update(*args)
        for each in outputs.values():
            failed.extend(
                o.request_id for o in each.outputs if o.finish_reason is FinishReason.ERROR
            )
        return outputs

    monkeypatch.setattr(rig.scheduler, "update_from_output", note)
    return failed


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, {}),
        ({"admission": "fcfs"}, {}),
        ({"admission": "fcfs"}, {"scheduling_policy": "priority"}),
        ({"headroom_ratio": 0.5}, {"is_ahead": True}),
    ],
)
def test_requests_after_an_oversized_one_are_served(
    make_rig: RigMaker,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    shape: dict[str, Any],
) -> None:
    rig = make_rig(8, settings=settings, **shape)
    failed = _errors(rig, monkeypatch)
    rig.turn("0", "ab")
    rig.send("running", "xy", num_outputs=40)
    rig.step()
    rig.send("large", "123456789")
    rig.send("1", "abc")
    rig.finish()
    assert failed == ["large"]
    assert "1" in rig.started
    assert "large" not in rig.started
    assert rig.metrics["holdfast_oversized_requests"] == 1


def test_oversized_request_ends_with_an_error(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(8)
    failed = _errors(rig, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="holdfast.vllm.oversized"):
        rig.turn("large", "12345678")  # and four tokens more
    assert failed == ["large"]
    (message,) = [r.getMessage() for r in caplog.records if "oversized" in r.name]
    assert message.startswith(
        "request large ended with an error: its 132 tokens need 9 KV blocks and the KV cache has 8;"
    )


def test_request_outgrowing_the_cache_ends_with_an_error(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(8)
    failed = _errors(rig, monkeypatch)
    rig.send("grows", "123456", num_outputs=100)
    rig.send("next", "abcdef")
    rig.finish()
    assert failed == ["grows"]
    assert len(rig.requests["next"].output_token_ids) == 8


def test_oversized_request_takes_no_reservation(make_rig: RigMaker) -> None:
    rig = make_rig(8)
    rig.turn("0", "abcdef")
    num_reserved = rig.scheduler._queue.num_reserved_blocks
    rig.turn("large", "1234567890")
    assert rig.scheduler._queue.num_reserved_blocks == num_reserved > 0
    assert rig.num_cached("abcdef") == 6


def test_aborted_oversized_request_gets_no_error(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(8)
    failed = _errors(rig, monkeypatch)
    rig.send("large", "123456789")
    rig.abort("large")
    rig.turn("1", "abc")
    assert failed == []


def test_largest_prompt_that_fits_runs(make_rig: RigMaker) -> None:
    rig = make_rig(8)
    rig.turn("0", "1234567", num_outputs=12)
    assert len(rig.requests["0"].output_token_ids) == 12
