"""What makes a prompt not extend its session's last one is found, with its place and cost."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.prompt_change import CHANGES, PromptChange
from holdfast.core.prompt_history import PromptHistory, stream_of
from holdfast.core.request_body import RequestBody

Body = dict[str, Any]
LONG = "word " * 600


def tool(name: str, text: str = "Does it.") -> Body:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}}
    return {"name": name, "description": text, "input_schema": schema}


def call(number: int, **more: Any) -> Body:
    use = {"type": "tool_use", "id": f"toolu_{number:08}", "name": "Read", "input": {"a": "x"}}
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": f"Look {number}."}, use],
        **more,
    }


def result(number: int, text: str = LONG) -> Body:
    block = {"type": "tool_result", "tool_use_id": f"toolu_{number:08}", "content": text}
    return {"role": "user", "content": [block]}


def messages_body() -> Body:
    billing = "x-anthropic-billing-header: cc_version=2.1.1; cch=1;"
    reminder = {"type": "text", "text": "<system-reminder>\nTodo: one\n</system-reminder>"}
    task = {"role": "user", "content": [reminder, {"type": "text", "text": "Fix the bug."}]}
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "s"}
    answered = call(1)
    answered["content"].insert(0, thought)
    return {
        "model": "m",
        "tools": [tool("Edit"), tool("Read", "Reads. Today is 2026-11-28."), tool("Write")],
        "system": [
            {"type": "text", "text": billing},
            {"type": "text", "text": f"{LONG}\nToday is 2026-11-28.\nsession 0123456789abcdef"},
        ],
        "messages": [task, answered, result(1), call(2), result(2, LONG * 2)],
    }


def change(first: Body, second: Body) -> PromptChange | None:
    history = PromptHistory()
    assert history.change("s", parsed(first)) is None
    return history.change("s", parsed(second))


def parsed(body: Body, **layout: Any) -> RequestBody:
    found = RequestBody.parse(json.dumps(body, **layout).encode())
    assert found is not None
    return found


def later() -> Body:
    body = messages_body()
    body["messages"] += [call(3), result(3)]
    return body


def edited(edit: Callable[[Body], object]) -> PromptChange | None:
    body = later()
    edit(body)
    return change(messages_body(), body)


def put(body: Body, path: list[Any], value: Any) -> None:
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = value


def test_a_prompt_that_only_grew_has_no_change() -> None:
    assert change(messages_body(), later()) is None
    assert change(messages_body(), messages_body()) is None


def test_cache_marks_and_layout_are_no_changes() -> None:
    body = later()
    for block in (body["system"][1], body["tools"][2], body["messages"][2]["content"][0]):
        block["cache_control"] = {"type": "ephemeral"}
    history = PromptHistory()
    history.change("s", parsed(messages_body(), indent=2))
    assert history.change("s", parsed(body, separators=(",", ":"))) is None


def _reorder(body: Body) -> None:
    body["tools"].reverse()


def _rewrite_form(body: Body) -> None:
    body["tools"][0] = dict(reversed(body["tools"][0].items()))


def _summarise(body: Body) -> None:
    body["messages"] = [{"role": "user", "content": "Summary: all is well."}]


EDITS: dict[str, tuple[Callable[[Body], object], str, int | None]] = {
    "billing": (
        lambda b: put(b, ["system", 0, "text"], "x-anthropic-billing-header: cch=2;"),
        *("system", None),
    ),
    "date": (
        lambda b: put(b, ["tools", 1, "description"], "Reads. Today is 2026-11-29."),
        *("tools", None),
    ),
    "id": (
        lambda b: put(b, ["messages", 1, "content", 2, "id"], "toolu_99999999"),
        *("messages", 1),
    ),
    "form": (_rewrite_form, "tools", None),
    "reminder": (lambda b: b["messages"][0]["content"].pop(0), "messages", 0),
    "reasoning": (lambda b: b["messages"][1]["content"].pop(0), "messages", 1),
    "tool_order": (_reorder, "tools", None),
    "tools_added": (lambda b: b["tools"].insert(1, tool("Lookup")), "tools", None),
    "tools_removed": (lambda b: b["tools"].pop(1), "tools", None),
    "tool_definition": (
        lambda b: put(b, ["tools", 0, "description"], "Edits well."),
        *("tools", None),
    ),
    "system": (lambda b: put(b, ["system", 1, "text"], LONG + "New rule."), "system", None),
    "answer": (
        lambda b: put(b, ["messages", 1, "content", 1, "text"], "I looked."),
        *("messages", 1),
    ),
    "tool_result": (
        lambda b: put(b, ["messages", 2, "content", 0, "content"], "[cleared]"),
        *("messages", 2),
    ),
    "message": (
        lambda b: put(b, ["messages", 0, "content", 1, "text"], "Fix it."),
        *("messages", 0),
    ),
    "inserted": (
        lambda b: b["messages"].insert(1, {"role": "user", "content": "Files:"}),
        *("messages", 1),
    ),
    "removed": (lambda b: put(b, ["messages"], [b["messages"][0], *b["messages"][3:]]),
                "messages", 1),
    "compacted": (_summarise, "messages", 0),
    "model": (lambda b: put(b, ["model"], "other"), "model", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", EDITS)
def test_each_change_is_named_with_its_place(kind: str) -> None:
    edit, where, message = EDITS[kind]
    found = edited(edit)
    assert found is not None
    assert (found.kind, found.where, found.message) == (kind, where, message)
    assert found.lost_bytes > 0


def test_reasoning_and_ids_changed_at_once_are_several() -> None:
    def edit(body: Body) -> None:
        content = body["messages"][1]["content"]
        content.pop(0)
        content[-1]["id"] = "toolu_another"

    found = edited(edit)
    assert found is not None and found.kind == "several"


def test_repository_state_and_several_changes_are_named() -> None:
    first = messages_body()
    git = "Current branch: main\n\nStatus:\n{}\n\nRecent commits:\nd17cb50 start"
    first["system"][1]["text"] += "\n" + git.format("(clean)")
    second = copy.deepcopy(first)
    second["system"][1]["text"] = second["system"][1]["text"].replace("(clean)", "M a.py")
    found = change(first, second)
    assert found is not None and found.kind == "git"
    second["system"][1]["text"] = second["system"][1]["text"].replace("11-28", "11-29")
    found = change(first, second)
    assert found is not None and found.kind == "several"


def test_depth_and_loss_are_counted_to_a_kib() -> None:
    first = messages_body()
    second = copy.deepcopy(first)
    second["messages"][4]["content"][0]["content"] = LONG + "X" * 3000
    found = change(first, second)
    assert found is not None
    compact = json.dumps(first, separators=(",", ":"))
    differs_at = compact.rindex("word word") - len(LONG)
    tail_bytes = len(compact) - differs_at
    assert 0 <= found.lost_bytes - tail_bytes + len("word word") <= 2048
    assert found.depth_bytes + found.lost_bytes == pytest.approx(len(compact), abs=100)


def test_what_templates_change_is_only_foreseen() -> None:
    body = later()
    body["messages"].append({"role": "system", "content": "Be brief."})
    found = change(messages_body(), body)
    assert found is not None
    assert (found.kind, found.lost_bytes) == ("merged_system", 0)
    body["messages"][-1] = {"role": "user", "content": "Go on."}
    found = change(messages_body(), body)
    assert found is not None
    assert (found.kind, found.lost_bytes) == ("dropped_reasoning", 0)


def test_side_calls_of_one_id_are_streams_of_their_own() -> None:
    history = PromptHistory()
    title = {"model": "m", "system": "Name it.", "messages": [{"role": "user", "content": "Bug"}]}
    history.change("s", parsed(messages_body()))
    assert history.change("s", parsed(title)) is None
    assert history.change("s", parsed(later())) is None


def test_answers_stored_elsewhere_say_nothing() -> None:
    history = PromptHistory()
    for number in (1, 2):
        continued = {"model": "m", "previous_response_id": "resp_1", "input": [result(number)]}
        assert history.change("s", parsed(continued)) is None


def test_prompts_of_completions_are_not_compared() -> None:
    history = PromptHistory()
    history.change("s", parsed({"model": "m", "prompt": LONG}))
    assert history.change("s", parsed({"model": "m", "prompt": [1, 2, 3]})) is None


def test_memory_is_bounded_by_forgetting_the_oldest() -> None:
    history = PromptHistory(max_bytes=40_000)
    for number in range(50):
        history.change(number, parsed(messages_body()))
    assert 1 < len(history) < 20
    changed = later()
    changed["tools"].pop()
    assert history.change(0, parsed(changed)) is None
    assert history.change(49, parsed(changed)) is not None


def test_sessions_without_ids_go_by_their_first_task() -> None:
    first, grown = parsed(messages_body()), parsed(later())
    other = messages_body()
    other["messages"][0]["content"][1]["text"] = "Write a test."
    assert stream_of(None, "t", first) == stream_of(None, "t", grown)
    assert stream_of(None, "t", first) != stream_of(None, "t", parsed(other))
    assert stream_of(None, "t", first) != stream_of(None, "u", first)


def test_no_text_of_a_prompt_is_kept() -> None:
    history = PromptHistory()
    body = messages_body()
    body["messages"][0]["content"][1]["text"] = "a-very-secret-word"
    history.change("s", parsed(body))
    kept = repr(history._streams) + repr(history._outliner._parts)
    assert "secret" not in kept and "bug" not in kept and "Reads" not in kept


def test_page_has_a_row_for_each_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "canonical-prompts.md").read_text()
    for kind, note in CHANGES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert note.sentence in row and note.advice in row and note.rule in row


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda each: st.lists(each, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name", "id", "x"]), each,
                      max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from(
    ["model", "tools", "system", "instructions", "messages", "input", "prompt"]
)


@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5), min_size=1, max_size=4))
def test_no_body_raises_and_every_kind_is_known(bodies: list[Body]) -> None:
    history = PromptHistory()
    for body in bodies:
        read = parsed(body)
        found = history.change(stream_of(None, "", read), read)
        assert found is None or (found.kind in CHANGES and found.lost_bytes >= 0)
        assert history.change(stream_of(None, "", read), read) is None
