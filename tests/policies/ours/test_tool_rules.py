"""Tests of `tool-rules`: rules, budgets and loops, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.errors import PolicyError
from holdfast.policies.ours.tool_rules import ToolRules
from holdfast.policies.registry import REQUEST_POLICIES
from holdfast.policies.requests import (
    AnswerEnded,
    CallJudged,
    Request,
    RequestSent,
    ToolCall,
    Verdict,
)


def policy(**values: Any) -> ToolRules:
    built = REQUEST_POLICIES.build("tool-rules", values)
    assert isinstance(built, ToolRules)
    return built


def request(
    session: str | None = "s", *, tenant: str = "", agent: str | None = None, **body: Any
) -> Request:
    text = json.dumps(body).encode()
    parsed = RequestBody.parse(text)
    assert parsed is not None
    who = Identity(session_id=session, agent_id=agent, tenant=tenant)
    return Request("/v1/chat/completions", parsed, who, 0.0)


def call(name: str = "Bash", **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments))


def action(of: ToolRules, what: ToolCall, whose: Request | None = None) -> str:
    return of.judge(whose or request(), what).action


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        {"action": "allow", "tool": "Bash", "arguments": {"command": "^git status$"}},
        {"action": "ask", "tool": "Bash", "arguments": {"command": r"\bgit\b"}, "name": "git"},
        {"action": "deny", "tool": "B*"},
    ]
    of = policy(rules=rules)
    assert action(of, call(command="git status")) == "allow"
    assert of.judge(request(), call(command="x; git push")).rule == "git"
    assert action(of, call(command="ls")) == "deny"
    assert of.judge(request(), call("Read")) == Verdict("allow", "default")


def test_the_default_may_be_to_deny() -> None:
    of = policy(default="deny", rules=[{"action": "allow", "tool": "Read"}])
    assert [action(of, call(name)) for name in ("Read", "read", "Write")] == [
        "allow",
        "deny",
        "deny",
    ]


def test_the_default_is_named_in_log_and_answer() -> None:
    verdict = policy(default="deny").judge(request(), call())
    assert verdict.rule == "default" and "(by default)" in verdict.message


def test_all_patterns_of_a_rule_must_be_found() -> None:
    rule = {"action": "deny", "arguments": {"command": "push", "cwd": "^/srv"}}
    of = policy(rules=[rule])
    assert action(of, call(command="git push", cwd="/srv/x")) == "deny"
    assert action(of, call(command="git push", cwd="/home/x")) == "allow"
    assert action(of, call(command="git pull", cwd="/srv/x")) == "allow"


def test_a_question_goes_to_the_human() -> None:
    rules = [{"action": "ask"}, {"action": "deny"}]
    asked, denied = (policy(rules=[rule]).judge(request(), call()).message for rule in rules)
    assert "a human has to decide" in asked and "human" not in denied


def test_rules_may_be_of_a_tenant_or_an_agent() -> None:
    rules = [
        {"action": "deny", "tenant": "team-*"},
        {"action": "deny", "agent": "worker"},
        {"action": "ask", "agent": ""},
    ]
    of = policy(rules=rules)
    assert action(of, call(), request(tenant="team-a", agent="x")) == "deny"
    assert action(of, call(), request(agent="worker")) == "deny"
    assert action(of, call(), request()) == "ask"
    assert action(of, call(), request(agent="other")) == "allow"


@pytest.mark.parametrize(
    ("path", "arguments", "is_found"),
    [
        ("command", {"command": "a\nrm  -rf /"}, True),
        ("command", {"other": "rm -rf"}, False),
        ("edits.*.path", {"edits": [{"path": "a"}, {"path": "rm -r"}]}, True),
        ("edits.0.path", {"edits": [{"path": "a"}, {"path": "rm -r"}]}, False),
        ("**", {"a": {"b": ["c", {"rm -r": 1}]}}, True),
        ("**", {"a": "rm", "b": "-r"}, False),
        ("command", {"command": ["rm -r"]}, True),
    ],
)
def test_arguments_are_found_by_path(path: str, arguments: dict[str, Any], is_found: bool) -> None:
    of = policy(rules=[{"action": "deny", "arguments": {path: r"rm +-\w*r"}}])
    assert action(of, call(**arguments)) == ("deny" if is_found else "allow")


@pytest.mark.parametrize("text", ['{"command": "ls"', "[]", '{"command": "ls", "command": "x"}'])
def test_arguments_read_in_two_ways_are_on_the_safe_side(text: str) -> None:
    for kind, expected in (("deny", "deny"), ("ask", "ask"), ("allow", "deny")):
        rules = [{"action": kind, "arguments": {"command": "ls"}}]
        of = policy(rules=rules, default="deny" if kind == "allow" else "allow")
        assert action(of, ToolCall("Bash", text)) == expected


@pytest.mark.parametrize(("value", "pattern"), [(True, "^true$"), ({"a": 1}, '^{"a": 1}$')])
def test_other_values_than_text_are_matched_as_json(value: Any, pattern: str) -> None:
    of = policy(rules=[{"action": "deny", "arguments": {"force": pattern}}])
    assert action(of, call(force=value)) == "deny"


def test_numbers_anywhere_are_matched_as_json() -> None:
    of = policy(rules=[{"action": "deny", "arguments": {"**": "^42$"}}])
    assert action(of, call(a=[{"b": 42}])) == "deny"


def test_no_arguments_match_no_pattern() -> None:
    of = policy(rules=[{"action": "deny", "arguments": {"**": "."}}])
    assert action(of, ToolCall("Bash", " ")) == "allow"


def test_halves_of_surrogate_pairs_are_text() -> None:
    of = policy(rules=[{"action": "deny", "arguments": {"**": "rm"}}])
    assert action(of, ToolCall("Bash", r'{"command": "\ud800 rm"}')) == "deny"


def test_no_pattern_takes_long() -> None:
    of = policy(rules=[{"action": "deny", "arguments": {"**": "(a|a|b?)*(a*)*z"}}])
    assert action(of, call(command="a" * 100_000)) == "allow"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rules": [{"action": "deny", "arguments": {"a": "("}}]}, "rule 1: '\\('"),
        ({"rules": [{"action": "deny", "arguments": {"a": r"(x)\1"}}]}, "no pattern of RE2"),
        ({"rules": [{"action": "forbid"}]}, r"rules\[0\].action"),
        ({"rules": [{"action": "deny", "tol": "x"}]}, "tol"),
        ({"rules": [{"tool": "x"}]}, "action"),
        ({"turns": 0}, "turns"),
        ({"spend": 1.0}, "input_price"),
        ({"trns": 3}, "no setting 'trns'"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        policy(**values)


def test_what_clients_see_has_nothing_of_the_call() -> None:
    for kind in ("deny", "ask"):
        rules = [{"action": kind, "message": "by the team's rules"}]
        verdict = policy(rules=rules).judge(request(), call("Secret", path="hidden"))
        assert "by the team's rules" in verdict.message
        assert "Secret" not in verdict.message and "hidden" not in verdict.message


# Budgets.


def ended(of: ToolRules, who: Request, prompt: int | None, output: int | None) -> None:
    of.observe(RequestSent(who, 0.0, 4000, 4000))
    of.observe(AnswerEnded(who, 1.0, prompt, output))


def test_sessions_end_at_their_turns() -> None:
    of, who = policy(turns=2), request()
    for _ in range(2):
        assert of.refuse(who) is None
        of.observe(RequestSent(who, 0.0, 1, 1))
    refused = of.refuse(who)
    assert refused is not None and refused.rule == "turns" and refused.status == 403
    assert of.refuse(request("other")) is None and of.refuse(request(tenant="t")) is None


def test_tokens_are_of_prompts_and_answers() -> None:
    of, who = policy(tokens=1000), request()
    ended(of, who, 600, 399)
    assert of.refuse(who) is None
    ended(of, who, 0, 1)
    assert of.refuse(who) is not None


def test_answers_without_usage_count_by_their_prompt() -> None:
    of, who = policy(tokens=1000), request()
    ended(of, who, None, None)  # 4000 bytes
    assert of.refuse(who) is not None


def test_each_answer_without_usage_counts_its_own_prompt() -> None:
    of, who = policy(tokens=2500), request()
    for _ in range(2):
        ended(of, who, None, None)  # 4000 bytes each
    assert of.refuse(who) is None


def test_spend_is_by_prices_of_a_million_tokens() -> None:
    of, who = policy(spend=1.0, input_price=2.0, output_price=10.0), request()
    ended(of, who, 250_000, 49_000)  # 0.50 + 0.49
    assert of.refuse(who) is None
    ended(of, who, 0, 1_000)
    refused = of.refuse(who)
    assert refused is not None and "used 1 of 1 spend" in refused.message


def test_sessions_without_ids_go_by_their_first_message() -> None:
    of = policy(turns=1)
    system = {"role": "system", "content": "You help."}
    first = {"role": "user", "content": "Do it."}
    marked = {"role": "user", "content": [{"type": "text", "text": "Do it.", "cache_control": {}}]}
    of.observe(RequestSent(request(None, messages=[system, first]), 0.0, 1, 1))
    assert of.refuse(request(None, messages=[system, marked, system])) is not None
    assert of.refuse(request(None, messages=[{"role": "user", "content": "Other."}])) is None
    assert of.refuse(request(None, input=[first])) is not None
    assert of.refuse(request(None)) is None


def test_sessions_are_forgotten_beyond_a_number() -> None:
    of = policy(turns=1, sessions=2)
    for name in ("a", "b", "c"):
        of.observe(RequestSent(request(name), 0.0, 1, 1))
    assert [of.refuse(request(name)) is None for name in ("a", "b", "c")] == [True, False, False]


def test_a_first_message_is_no_id() -> None:
    of = policy(turns=1)
    of.observe(RequestSent(request("Do it."), 0.0, 1, 1))
    said = {"role": "user", "content": "Do it."}
    assert of.refuse(request(None, messages=[said])) is None


def test_an_input_of_text_alone_names_a_session() -> None:
    of = policy(turns=1)
    of.observe(RequestSent(request(None, input="Do it."), 0.0, 1, 1))
    assert of.refuse(request(None, input="Do it.")) is not None
    assert of.refuse(request(None, input="Do other things.")) is None


def test_requests_of_no_session_have_no_budget() -> None:
    of = policy(turns=1)
    of.observe(RequestSent(request(None), 0.0, 1, 1))
    assert of.refuse(request(None)) is None


def test_the_latest_used_sessions_are_remembered() -> None:
    of = policy(turns=1, sessions=2)
    for name in ("a", "b", "a", "c"):
        of.observe(RequestSent(request(name), 0.0, 1, 1))
    assert [of.refuse(request(name)) is None for name in ("a", "b", "c")] == [False, True, False]


# Loops.


def made(of: ToolRules, what: ToolCall) -> str:
    verdict = of.judge(request(), what)
    of.observe(CallJudged(request(), what, verdict, 0.0))
    return verdict.rule


def test_a_call_is_made_so_often_and_no_more() -> None:
    of = policy(repeats=2)
    again = ToolCall("Bash", '{ "b": 1, "a": 2 }')
    rules = [made(of, each) for each in (call(a=2, b=1), again, again, call(a=2), again)]
    assert rules == ["default", "default", "repeats", "default", "repeats"]


def test_calls_of_two_tools_are_two_calls() -> None:
    of = policy(repeats=1)
    assert [made(of, call(name, a=1)) for name in ("Read", "Write")] == ["default"] * 2


def test_the_latest_calls_of_a_session_are_remembered() -> None:
    of = policy(repeats=2)
    again = call(a="again")
    for what in (again, *(call(a=n) for n in range(1023)), again, call(a=-1)):
        made(of, what)
    assert made(of, again) == "repeats"
    for number in range(2000, 3024):
        made(of, call(a=number))
    assert made(of, again) == "default"


def test_denied_calls_are_no_loop() -> None:
    of = policy(repeats=1, rules=[{"action": "deny", "tool": "Bash"}])
    assert [made(of, call()) for _ in range(3)] == ["rule 1"] * 3


def test_calls_that_others_deny_are_no_loop() -> None:
    of = policy(repeats=1)
    of.observe(CallJudged(request(), call(), Verdict("deny"), 0.0))
    assert action(of, call()) == "allow"


def test_questions_change_nothing() -> None:
    of = policy(turns=1, repeats=1)
    for _ in range(3):
        assert of.refuse(request()) is None and action(of, call()) == "allow"
