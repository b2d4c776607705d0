"""Detection of a file's format by fields that only the format has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast.errors import TraceError
from holdfast.traces.formats.layout import missing_fields
from holdfast.traces.formats.registry import READERS
from holdfast.traces.io import read_sessions


def _missing(record: dict[str, Any], *layout: str) -> list[str]:
    fields = msgspec.json.decode(msgspec.json.encode(record), type=dict[str, msgspec.Raw])
    return missing_fields(fields, frozenset(layout))


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"a": None}, "a"),
        ({"a": {"b": 1}}, "a.b"),
        ({"a": [{"b": 1}, 5]}, "a[].b"),
        ({"a": "x"}, "a=w|x"),
        ({"a": {"b": "dynamo.v1"}}, "a.b=dynamo.*"),
    ],
)
def test_layout_matches_objects_lists_and_texts(record: dict[str, Any], field: str) -> None:
    assert _missing(record, field) == []


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({}, "a"),
        ({"a": 5}, "a.b"),
        ({"a": []}, "a[].b"),
        ({"a": {"b": 1}}, "a[].b"),
        ({"a": 5}, "a=5"),
        ({"a": "xy"}, "a=x|y"),
        ({"a": "x"}, "a=xy*"),
    ],
)
def test_value_of_another_type_does_not_match(record: dict[str, Any], field: str) -> None:
    assert _missing(record, "also", field) == sorted([field, "also"])


_ENTRY = {"uuid": "u", "parentUuid": None, "sessionId": "s", "timestamp": "2026-04-20T10:00:00Z"}


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("hooks.jsonl", {"timestamp": "2026-04-20T10:00:00Z", "event": "hook.start"}),
        ("bus.jsonl", {"timestamp": 1, "event": {"schema": "orders", "event_type": "paid"}}),
        ("avro.jsonl", {"schema": "orders", "event_type": "paid"}),
        ("connect.jsonl", {"schema": {}, "record": {}}),
        ("worker.jsonl", {"time_s": 1.0, "event": "started"}),
        ("audit.jsonl", {"timestamp": "2026-04-20T10:00:00Z", "type": "login", "payload": {}}),
        ("queue.jsonl", {"type": "job", "operation": "add", "timestamp": 1, "sessionId": "s"}),
        ("chat.jsonl", _ENTRY | {"type": "note", "message": {"role": "user", "body": []}}),
        ("jaeger.json", {"traceID": "a", "spans": [{"traceID": "a"}], "processes": {}}),
        ("mails.json", {"info": {"box": "in"}, "messages": [{"role": "user", "content": "a"}]}),
    ],
)
def test_unrelated_file_is_not_a_trace(write_lines: Any, name: str, record: dict[str, Any]) -> None:
    with pytest.raises(TraceError, match="unknown layout with the fields") as caught:
        list(read_sessions(write_lines(name, record)))
    kind = "document" if name.endswith(".json") else "lines"
    assert all(each.name in (caught.value.hint or "") for each in READERS if each.kind == kind)


def test_closest_format_named_with_missing_fields(write_lines: Any) -> None:
    path = write_lines("a.jsonl", {"timestamp": 0, "input_length": 9, "output_length": 1})
    with pytest.raises(TraceError) as caught:
        list(read_sessions(path))
    assert "Mooncake is the closest, and also has hash_ids" in (caught.value.hint or "")
