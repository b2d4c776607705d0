"""The policy `canonical-prompt` keeps prefixes, changes nothing unasked, and loses nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.identity import Identity
from holdfast.core.prompt_change import CHANGES
from holdfast.core.request_body import RequestBody
from holdfast.errors import PolicyError
from holdfast.policies.ours.canonical_prompt import (
    RULES,
    CanonicalPrompt,
    CanonicalPromptSettings,
    RuleName,
)
from holdfast.policies.registry import build_request_policy, request_policy_names
from holdfast.policies.requests import Request, RequestSent

Body = dict[str, Any]
ALL: tuple[RuleName, ...] = get_args(RuleName)
APIS = ("messages", "chat", "responses")
BILLING = "x-anthropic-billing-header: cc_version=2.1; cch={};"
GIT = "Current branch: main\n\nStatus:\n{}\n\nRecent commits:\nd17cb50 start"


class Gateway:
    """A policy, asked and told as a gateway does."""

    def __init__(self, *rules: RuleName, session_id: str | None = "s", tenant: str = "") -> None:
        self.policy = CanonicalPrompt(CanonicalPromptSettings(rules=rules))
        self.identity = Identity(session_id, tenant=tenant)

    def request(self, body: Body | bytes) -> Request:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        parsed = RequestBody.parse(text)
        assert parsed is not None
        return Request("/v1/chat/completions", parsed, self.identity, 0.0)

    def rewritten(self, body: Body | bytes) -> bytes | None:
        return self.policy.rewrite(self.request(body))

    def sent(self, body: Body) -> Body:
        """What reaches the engine; the policy takes note of it."""
        text = self.rewritten(body) or json.dumps(body).encode()
        self.policy.observe(RequestSent(self.request(text), 0.0, 0, 0))
        found: Body = json.loads(text)
        return found


def system_of(api: str, text: str) -> Body:
    if api == "messages":
        return {"system": [{"type": "text", "text": text}]}
    return {"instructions": text} if api == "responses" else {}


def list_of(body: Body) -> list[Any]:
    found: list[Any] = body["input" if "input" in body else "messages"]
    return found


def body_of(api: str, system: str, messages: list[Body], tools: Any = None) -> Body:
    head = [{"role": "system", "content": system}] if api == "chat" else []
    name = "input" if api == "responses" else "messages"
    return {"model": "m", "tools": tools or [], **system_of(api, system), name: [*head, *messages]}


def user(text: Any) -> Body:
    return {"role": "user", "content": text}


def answer(text: str) -> Body:
    return {"role": "assistant", "content": text}


def tool(name: str, **more: Any) -> Body:
    return {"name": name, "description": f"{name}.", "input_schema": {"type": "object"}, **more}


def test_nothing_is_rewritten_without_permission() -> None:
    gateway = Gateway()
    for day in ("2026-11-28", "2026-11-29"):
        body = body_of("chat", f"Today is {day}.", [user("a")], [tool("b"), tool("a")])
        assert gateway.sent(body) == body
    assert not gateway.policy._sessions


@pytest.mark.parametrize("rule", ALL)
def test_canonical_prompts_are_not_touched(rule: RuleName) -> None:
    body = body_of("messages", "Rules.", [user("a"), answer("b"), user("c")], [tool("a")])
    assert Gateway(rule).rewritten(body) is None


def test_billing_lines_are_taken_out() -> None:
    gateway = Gateway("billing")
    body = body_of("messages", "Rules.", [user("a")])
    body["system"].insert(0, {"type": "text", "text": BILLING.format(7)})
    assert gateway.sent(body) == body_of("messages", "Rules.", [user("a")])
    within = body_of("chat", f"{BILLING.format(7)}\nRules.", [user("a")])
    assert gateway.sent(within) == body_of("chat", "Rules.", [user("a")])
    alone = body_of("messages", BILLING.format(7), [user("a")])
    assert gateway.rewritten(alone) is None  # an empty system prompt is no valid one everywhere


def test_tools_keep_the_order_of_the_session() -> None:
    gateway = Gateway("tool-order")

    def names(*tools: str) -> list[str]:
        sent = gateway.sent(body_of("messages", "R", [user("a")], [tool(n) for n in tools]))
        return [each["name"] for each in sent["tools"]]

    assert names("Write", "Read", "Edit") == ["Edit", "Read", "Write"]
    assert names("Read", "Write", "Edit") == ["Edit", "Read", "Write"]
    assert names("Zip", "Edit", "Lookup", "Read", "Write") == [
        *("Edit", "Read", "Write", "Lookup", "Zip"),
    ]
    assert names("Edit", "Read", "Write", "Lookup", "Zip", "Again") == [
        *("Edit", "Read", "Write", "Lookup", "Zip", "Again"),
    ]
    assert names("Write", "Read") == ["Read", "Write"]


def test_tools_without_unique_names_stay() -> None:
    gateway = Gateway("tool-order")
    for tools in ([tool("b"), tool("a"), tool("b")], [tool("b"), {"name": 3}], ["x", tool("a")]):
        body = body_of("messages", "R", [user("a")], tools)
        assert gateway.rewritten(body) is None


def test_equal_tools_have_one_form() -> None:
    gateway = Gateway("tool-form", tenant="t")
    first = tool("a", input_schema={"type": "object", "properties": {"x": {}, "y": {}}})
    other = dict(reversed(first.items()))
    other["input_schema"] = {"properties": {"y": {}, "x": {}}, "type": "object"}
    changed = {**other, "description": "Else."}
    gateway.sent(body_of("messages", "R", [user("a")], [first]))
    for given_, expected in ((other, first), (changed, changed)):
        sent = gateway.sent(body_of("messages", "R", [user("a")], [given_]))
        assert json.dumps(sent["tools"]) == json.dumps([expected])


@pytest.mark.parametrize("api", APIS)
def test_a_changed_date_is_told_and_the_head_kept(api: str) -> None:
    gateway = Gateway("dates")
    old, new = (f"Rules.\nToday is {day}.\nMore." for day in ("2026-11-28", "2026-11-29"))
    first = gateway.sent(body_of(api, old, [user("a")]))
    turns = [user("a"), answer("b"), user("c")]
    second = gateway.sent(body_of(api, new, turns))
    assert system_part(second) == system_part(first)
    assert list_of(second)[:-1] == [*list_of(first), answer("b")]
    told = list_of(second)[-1]["content"]
    assert told.startswith("<system-reminder>") and told.endswith("\n\nc")
    assert "Today is 2026-11-29." in told and "More." not in told
    third = gateway.sent(body_of(api, new, [*turns, answer("d"), user("e")]))
    assert list_of(third) == [*list_of(second), answer("d"), user("e")]
    back = gateway.sent(body_of(api, old, [*turns, answer("d"), user("e"), answer("f"), user("g")]))
    assert list_of(back)[:-1] == [*list_of(third), answer("f")]
    assert "Today is 2026-11-28." in list_of(back)[-1]["content"]


def system_part(body: Body) -> Any:
    return body.get("system") or body.get("instructions") or body["messages"][0]


def test_a_changed_repository_is_told_once() -> None:
    gateway = Gateway("git-status")
    said = [user("a"), answer("b"), user([{"type": "text", "text": "c"}])]
    head = "Rules.\n{}\nMore."
    first = gateway.sent(body_of("messages", head.format(GIT.format("(clean)")), said[:1]))
    changed = head.format(GIT.format("M a.py\n M b.py"))
    second = gateway.sent(body_of("messages", changed, said))
    assert second["system"] == first["system"]
    told, own = second["messages"][-1]["content"]
    assert " M b.py" in told["text"] and own == {"type": "text", "text": "c"}
    third = gateway.sent(body_of("messages", changed, [*said, answer("d")]))
    assert third["messages"] == [*second["messages"], answer("d")]


def test_other_changes_of_the_head_begin_anew() -> None:
    gateway = Gateway("dates")
    gateway.sent(body_of("chat", "Rules. 2026-11-28", [user("a")]))
    other = body_of("chat", "New rules. 2026-11-29", [user("a"), answer("b"), user("c")])
    assert gateway.sent(other) == other
    compacted = body_of("chat", "New rules. 2026-11-30", [user("summary")])
    assert gateway.sent(compacted)["messages"][0]["content"] == "New rules. 2026-11-29"


def test_a_rewritten_history_begins_anew() -> None:
    gateway = Gateway("dates")
    turns = [user("a"), answer("b"), user("c")]
    gateway.sent(body_of("chat", "On 2026-11-28", turns[:1]))
    gateway.sent(body_of("chat", "On 2026-11-29", turns))
    edited = body_of("chat", "On 2026-11-29", [user("a"), answer("b"), user("C")])
    assert gateway.sent(edited) == edited


def test_a_change_waits_for_the_users_next_message() -> None:
    gateway = Gateway("dates")
    call = {"role": "assistant", "tool_calls": [{"id": "1"}], "content": None}
    result = {"role": "tool", "tool_call_id": "1", "content": "done"}
    turns = [user("a"), call, result]
    gateway.sent(body_of("chat", "On 2026-11-28", turns[:1]))
    second = gateway.sent(body_of("chat", "On 2026-11-29", turns))
    assert second == body_of("chat", "On 2026-11-28", turns)
    third = gateway.sent(body_of("chat", "On 2026-11-29", [*turns, answer("d"), user("e")]))
    assert "On 2026-11-29" in third["messages"][-1]["content"]


def test_later_system_messages_become_reminders() -> None:
    gateway = Gateway("inline-system")
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "x"}]}
    result = user([{"type": "tool_result", "tool_use_id": "1"}])
    reminder = "<system-reminder>\nBe brief.\n</system-reminder>"
    sent = gateway.sent(body_of("messages", "R", [user("a"), system, call, result, system]))
    assert sent["messages"] == [
        user(f"a\n\n{reminder}"),
        call,
        user([*result["content"], {"type": "text", "text": reminder}]),
    ]
    after_tool = [user("a"), call, {"role": "tool", "tool_call_id": "1", "content": "x"}, system]
    sent = gateway.sent(body_of("chat", "R", after_tool))
    assert sent["messages"][1:] == [*after_tool[:-1], user(reminder)]


def test_system_messages_before_results_stay() -> None:
    system = {"role": "system", "content": "Be brief."}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "x"}
    image = {"role": "system", "content": [{"type": "image"}]}
    for messages in ([user("a"), call, system, result], [user("a"), image, answer("b")]):
        assert Gateway("inline-system").rewritten(body_of("chat", "R", messages)) is None
    codex = [user("a"), {"type": "function_call", "call_id": "1"}, system,
             {"type": "function_call_output", "call_id": "1", "output": "x"}]  # fmt: skip
    assert Gateway("inline-system").rewritten(body_of("responses", "R", codex)) is None


def test_prompts_that_continue_stored_answers_pass() -> None:
    body = body_of("responses", BILLING.format(1) + "\nR", [user("a")], [tool("b"), tool("a")])
    assert Gateway(*ALL).rewritten({**body, "previous_response_id": "resp_1"}) is None


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"canonical-prompt.*dats"):
        build_request_policy("canonical-prompt", {"rules": ["dats"]})
    assert "canonical-prompt" in request_policy_names()
    assert build_request_policy("canonical-prompt", {}).settings.rules == ()


def test_rules_are_named_by_changes_and_page() -> None:
    assert {note.rule for note in CHANGES.values()} - {""} == set(ALL) == RULES.keys()
    page = (Path(__file__).parents[3] / "docs" / "canonical-prompts.md").read_text()
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.does} | {rule.argument} | {rule.risk} |" in page.splitlines()


# Properties over whole sessions.

WORDS = st.text(st.sampled_from("abc \n.é"), min_size=1, max_size=8)
DAYS = st.sampled_from(["2026-11-28", "2026-11-29", "November 30, 2026"])
STATUS = st.sampled_from(["(clean)", "M a.py", " M b.py\n?? c"])
NAMES = st.lists(st.sampled_from("abcdef"), unique=True, min_size=1)


@st.composite
def turns(draw: st.DrawFn) -> list[Body]:
    """Messages that a client appends: an answer, then a user's or a tool's, and reminders."""
    if draw(st.booleans()):
        call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "x"}]}
        result = {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": draw(WORDS)}]}  # fmt: skip
        added: list[Body] = [call, result]
    else:
        text = draw(WORDS)
        blocks = draw(st.booleans())
        said: Any = [{"type": "text", "text": text}] if blocks else text
        added = [answer(draw(WORDS)), {"role": "user", "content": said}]
    if draw(st.booleans()):
        added.append({"role": "system", "content": draw(WORDS)})
    return added


@st.composite
def sessions(draw: st.DrawFn) -> list[Body]:
    """The requests of a session whose client changes all that changes by itself."""
    messages = [user(draw(WORDS))]
    bodies = []
    names: list[str] = []
    for number in range(draw(st.integers(2, 5))):
        names += [name for name in draw(NAMES) if name not in names]
        tools = [tool(name) for name in draw(st.permutations(names))]
        text = f"R.\nToday is {draw(DAYS)}.\n{GIT.format(draw(STATUS))}\nEnd."
        body = body_of("messages", text, list(messages), tools)
        body["system"].insert(0, {"type": "text", "text": BILLING.format(number)})
        bodies.append(body)
        messages += draw(turns())
    return bodies


@settings(max_examples=60, deadline=None)
@given(sessions())
def test_each_canonical_prompt_extends_the_last(bodies: list[Body]) -> None:
    gateway = Gateway(*ALL)
    sent = [gateway.sent(body) for body in bodies]
    for last, new in itertools.pairwise(sent):
        assert new["system"] == last["system"]
        assert new["tools"][: len(last["tools"])] == last["tools"]
        assert new["messages"][: len(last["messages"])] == last["messages"]


@settings(max_examples=60, deadline=None)
@given(sessions(), st.sets(st.sampled_from(ALL), min_size=1))
def test_a_canonical_prompt_is_rewritten_into_itself(
    bodies: list[Body], rules: set[RuleName]
) -> None:
    gateway = Gateway(*sorted(rules))
    for body in bodies:
        once = gateway.rewritten(body)
        if once is not None:
            twice = gateway.rewritten(once)
            assert json.loads(twice or once) == json.loads(once)
        sent = gateway.sent(body)
        assert json.loads(gateway.rewritten(sent) or json.dumps(sent)) == sent


@settings(max_examples=60, deadline=None)
@given(sessions())
def test_canonical_prompts_lose_nothing_and_stay_valid(bodies: list[Body]) -> None:
    gateway = Gateway(*ALL)
    for body in bodies:
        new = gateway.sent(body)
        assert {key: new[key] for key in new if key not in ("tools", "system", "messages")} == {
            "model": "m"
        }
        assert sorted(map(json.dumps, new["tools"])) == sorted(map(json.dumps, body["tools"]))
        for message in body["messages"]:
            for text in texts_in(message):
                assert any(text in kept for each in new["messages"] for kept in texts_in(each))
        assert_valid(new["messages"])


def texts_in(message: Body) -> list[str]:
    content = message["content"]
    blocks = [content] if isinstance(content, str) else content
    return [each if isinstance(each, str) else str(each.get("text", each)) for each in blocks]


def assert_valid(messages: list[Body]) -> None:
    """Roles, and results directly after their calls and first in their message."""
    assert all(message["role"] in ("user", "assistant", "system") for message in messages)
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        types = [block["type"] for block in blocks]
        assert "tool_result" not in types[1:] or set(types[:1]) == {"tool_result"}
        if "tool_use" in types and index + 1 < len(messages):
            assert messages[index + 1]["content"][0]["type"] == "tool_result"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name", "function"]),
                      each | st.sampled_from(["system", "user", "text", "On 2026-11-28"]),
                      max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from(["model", "tools", "system", "instructions", "messages", "input"])


@settings(deadline=None)
@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5), min_size=1, max_size=4))
def test_odd_bodies_neither_fail_nor_become_odder(bodies: list[Body]) -> None:
    gateway = Gateway(*ALL, session_id=None)
    for body in bodies:
        text = gateway.rewritten(body)
        parsed = RequestBody.parse(text or json.dumps(body).encode())
        assert parsed is not None and parsed.fields.keys() == body.keys()
        gateway.policy.observe(RequestSent(gateway.request(parsed.text), 0.0, 0, 0))
