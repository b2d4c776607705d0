"""The judge of one answer: each call once, repeated parts as they were decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.gateway.audit_log import AuditLog
from holdfast.gateway.call_judge import CallJudge, Decided, JudgedText
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.policies.requests import Request, RequestPolicy, ToolCall, Verdict
from holdfast.policies.spec import PolicySpec

REQUEST = Request("/v1/responses", RequestBody(b"{}", {}), Identity("s", tenant="t"), 0.0)
CALL = '{"name": "read", "arguments": {"path": "a"}}'


class OnlyOnce(RequestPolicy):
    """Allows the first call of an answer and denies all others."""

    spec = PolicySpec("only-once", "Allows the first call.", "this test")
    judges_calls: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.num_judged = 0

    def judge(self, request: Request, call: ToolCall) -> Verdict:
        self.num_judged += 1
        return Verdict("allow" if self.num_judged == 1 else "deny", message="no")


@pytest.fixture
def policy() -> OnlyOnce:
    return OnlyOnce()


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics()


def judge_of(
    policy: OnlyOnce,
    metrics: GatewayMetrics,
    told: list[tuple[str, Decided]] | None = None,
    before: Decided | None = None,
) -> CallJudge:
    def tell(answer_id: str, identity: Identity, decided: Decided) -> None:
        assert told is not None and identity is REQUEST.identity
        told.append((answer_id, decided))

    policies = RequestPolicies([policy], metrics)
    hear = None if told is None else tell
    return CallJudge(policies, REQUEST, metrics.unjudged, hear, before)


def test_repeated_calls_are_decided_in_their_order(
    policy: OnlyOnce, metrics: GatewayMetrics
) -> None:
    judge = judge_of(policy, metrics)
    arguments = '{"path": "a"}', '{ "path": "a" }'
    first = [judge.judge("read", each).action for each in arguments]
    again = judge.again()
    assert first == [again("read", each).action for each in arguments] == ["allow", "deny"]
    assert again("read", "{}").action == "deny" and policy.num_judged == 3


def test_stored_answers_are_decided_as_before(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    told: list[tuple[str, Decided]] = []
    judge = judge_of(policy, metrics, told)
    judge.learn_id("resp_1")
    judge.learn_id(None)
    judge.judge("read", "{}")
    ((answer_id, decided),) = told
    stored = judge_of(policy, metrics, before=decided)
    assert answer_id == "resp_1"
    assert [stored.judge("read", "{}").action for _ in range(2)] == ["allow", "deny"]


def test_texts_of_denied_calls_are_judged_once(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    judge = judge_of(policy, metrics)
    judge.judge("first", "{}")
    found = judge.judge_text(f"Go: {CALL}")
    assert (found.cut_from, found.kept(0, f"Go: {CALL}")) == (4, "Go: ")
    assert judge.judge_text(f"Go: {CALL}") is found
    assert policy.num_judged == 2


def test_the_first_denied_call_cuts_a_text(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    text = JudgedText(judge_of(policy, metrics))
    other = CALL.replace("read", "write")
    text.feed(f"{CALL} {other} {other}")
    assert text.cut_from == len(CALL) + 1
    start = text.num_chars
    text.feed("more")
    assert text.num_chars == start + 4 and text.kept(start, "more") == ""


def test_half_surrogates_in_calls_can_be_judged(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    assert judge_of(policy, metrics).judge("read\ud800", '{"a": "\\ud800"}').is_allowed


def test_unjudged_calls_are_counted_and_taken_down(
    policy: OnlyOnce, metrics: GatewayMetrics, tmp_path: Path
) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    judge = CallJudge(RequestPolicies([policy], metrics, audit), REQUEST, metrics.unjudged)
    assert not judge.unreadable().is_allowed
    assert "longer than 8 MiB" in judge.too_long(8 << 20).message
    audit.close()
    for reason in ("unreadable", "too_long"):
        assert metrics.unjudged.labels(reason)._value.get() == 1.0
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["rule"] for line in lines] == ["unreadable", "too long"]


def test_repeated_calls_are_told_by_their_arguments(
    policy: OnlyOnce, metrics: GatewayMetrics
) -> None:
    judge = judge_of(policy, metrics)
    first, second = '{"path": "a"}', '{"path": "b"}'
    assert [judge.judge("read", each).action for each in (first, second)] == ["allow", "deny"]
    again = judge.again()
    assert [again("read", each).action for each in (second, first)] == ["deny", "allow"]


def test_calls_denied_unread_stay_denied(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    judge = judge_of(policy, metrics)
    judge.deny("read", "{", Verdict("deny", "too long"))
    assert judge.again()("read", "{").rule == "too long" and not policy.num_judged


def test_calls_held_to_the_end_of_a_text_are_judged(
    policy: OnlyOnce, metrics: GatewayMetrics
) -> None:
    judge = judge_of(policy, metrics)
    judge.judge("first", "{}")
    tagged = f"Go: <tool_call>{CALL}</tool_call>"
    assert judge.judge_text(tagged).kept(0, tagged) == "Go: "


def test_text_after_an_allowed_call_is_another(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    text = JudgedText(judge_of(policy, metrics))
    text.feed(f"<tool_call>{CALL}</tool_call>")
    assert text.is_held
    text.end()
    assert not text.is_held and text.cut_from is None
    start = text.num_chars
    text.feed(CALL)
    assert text.cut_from == start and policy.num_judged == 2


def test_call_that_cannot_be_read_cuts_a_text(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    text = JudgedText(judge_of(policy, metrics))
    text.feed("Go: <tool_call>{")
    text.end()
    assert text.verdict is not None and text.verdict.rule == "unreadable"
    assert (text.kept(0, "Go: <"), text.kept(5, "tool_call>{")) == ("Go: ", "")


def test_only_what_is_held_is_cut(policy: OnlyOnce, metrics: GatewayMetrics) -> None:
    text = JudgedText(judge_of(policy, metrics))
    text.feed("Nothing to hold.")
    text.cut(Verdict("deny"))
    assert text.cut_from is None and text.verdict is None
