"""What results offer to later calls."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.predict.call_history import NAMES, CallHistory, call_key, offered_values


def text(*texts: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": each} for each in texts]}


def test_text_offers_paths_once_in_order() -> None:
    found = offered_values(text("src/a.py:12: x = 1\nsrc/b.py:3: y\nsrc/a.py:20: z"), {})
    assert found == {NAMES: ["src/a.py", "src/b.py"]}


def test_listing_offers_names_below_its_directory() -> None:
    found = offered_values(text("[FILE] a.md\n[FILE] b.md"), {"path": "/w/docs/"})
    assert found == {NAMES: ["a.md", "b.md"], "path/": ["/w/docs/a.md", "/w/docs/b.md"]}


def test_json_offers_values_by_key() -> None:
    found = offered_values(text('[{"id": 7, "open": true}, {"id": 9, "title": "t"}]'), {})
    assert found == {"id": [7, 9], "title": ["t"]}


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"content": None},
        {"content": [3, {"type": "image"}, {"type": "text", "text": 5}]},
        text("{broken", "[" * 100_000),
        text("x" * 100_000),
    ],
)
def test_odd_results_offer_nothing(result: dict[str, Any]) -> None:
    assert offered_values(result, {"path": "/w", "other": [1]}) == {}


def test_offers_are_bounded() -> None:
    names = "\n".join(f"f{number}.py" for number in range(500))
    assert len(offered_values(text(names), {})[NAMES]) == 64


def test_value_after_another_is_found_in_the_newest_group() -> None:
    history = CallHistory()
    for names in (["a", "b", "c"], ["b", "z"]):
        history.add("list", {}).offers = {NAMES: names}
    assert (history.after("a"), history.after("b"), history.after("z")) == ("b", "z", None)


def test_equal_calls_have_one_key_and_long_ones_a_short_key() -> None:
    assert call_key("t", {"a": 1, "b": [2]}) == call_key("t", {"b": [2], "a": 1})
    assert call_key("t", {"a": 1}) != call_key("t", {"a": True})
    long = call_key("t", {"a": "x" * 10_000})
    assert len(long) < 100
    assert long != call_key("t", {"a": "y" * 10_000})


def test_long_arguments_are_not_kept() -> None:
    call = CallHistory().add("write", {"path": "/a", "content": "x" * 10_000})
    assert call.arguments == {"path": "/a"}
