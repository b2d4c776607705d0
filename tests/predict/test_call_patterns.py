"""Hand-worked sequences of tool calls, and what is predicted after them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast.predict.call_history import CallHistory
from holdfast.predict.call_patterns import CallPatterns, PredictedCall

Call = tuple[str, dict[str, Any], dict[str, list[Any]]]
"""A tool, arguments, and what the result offers."""

Calls = Sequence[Call]


def run(patterns: CallPatterns, calls: Calls) -> CallHistory:
    """One session of these calls."""
    history = CallHistory()
    for tool, arguments, offers in calls:
        patterns.learn(history, tool, arguments)
        history.add(tool, arguments).offers = offers
    return history


def best(patterns: CallPatterns, history: CallHistory) -> PredictedCall | None:
    return next(iter(patterns.predict(history)), None)


def status_then_diff(repository: str) -> Calls:
    return [("status", {"repo": repository}, {}), ("diff", {"repo": repository}, {})]


def test_probability_of_a_sequence_is_counted_by_hand() -> None:
    """The first session shows the pattern, each later one is a trial that hits.

    After n of these: hits 1 + .95 + ... = trials; its shape has as many with .99, over 20 more. The
    probability is (hits + 2 * base) / (trials + 2).
    """
    patterns = CallPatterns()
    for _ in range(3):
        run(patterns, status_then_diff("/a"))
    predicted = best(patterns, run(patterns, status_then_diff("/a")[:1]))
    hits, shape = 1.0 + 0.95, 1.0 + 0.99
    assert predicted is not None
    assert (predicted.tool, predicted.arguments) == ("diff", {"repo": "/a"})
    # both patterns of the shape (after the tool) are trials of their own shapes
    assert predicted.probability == pytest.approx((hits + 2 * shape / (shape + 20)) / (hits + 2))


def test_an_argument_is_copied_from_the_last_call() -> None:
    patterns = CallPatterns()
    for repository in ("/a", "/b", "/c"):
        run(patterns, status_then_diff(repository))
    predicted = best(patterns, run(patterns, status_then_diff("/new")[:1]))
    assert predicted is not None
    assert predicted.arguments == {"repo": "/new"}


def test_a_value_is_copied_from_the_last_result() -> None:
    patterns = CallPatterns()
    for first in ("x.py", "y.py", "z.py"):
        offers = {"": ["other", f"src/{first}"]}
        run(patterns, [("grep", {"for": first}, offers), ("read", {"path": f"src/{first}"}, {})])
    asked = ("grep", {"for": "w"}, {"": ["other", "src/w.py"]})
    predicted = best(patterns, run(patterns, [asked]))
    assert predicted is not None
    assert (predicted.tool, predicted.arguments) == ("read", {"path": "src/w.py"})


def test_files_of_a_listing_are_read_one_after_the_other() -> None:
    patterns = CallPatterns()
    for names in (["a", "b", "c"], ["d", "e", "f"]):
        reads: list[Call] = [("read", {"path": name}, {}) for name in names]
        run(patterns, [("list", {}, {"": names}), *reads])
    listed: Call = ("list", {}, {"": ["p", "q", "r", "s", "t"]})
    history = run(patterns, [listed, ("read", {"path": "s"}, {})])
    predicted = best(patterns, history)
    assert predicted is not None
    assert predicted.arguments == {"path": "t"}


def test_a_number_is_not_a_truth_value() -> None:
    patterns = CallPatterns()
    for _ in range(4):
        run(patterns, [("one", {"deep": True}, {}), ("two", {"count": 1}, {})])
    predicted = best(patterns, run(patterns, [("one", {"deep": True}, {})]))
    assert predicted is not None
    assert predicted.arguments == {"count": 1}
    assert predicted.arguments["count"] is not True


def test_nothing_is_predicted_before_it_is_seen_twice() -> None:
    patterns = CallPatterns()
    run(patterns, status_then_diff("/a"))
    assert patterns.predict(run(patterns, status_then_diff("/a")[:1])) == []
    assert patterns.predict(CallHistory()) == []


def test_a_sequence_that_ends_is_forgotten() -> None:
    patterns = CallPatterns()
    for _ in range(20):
        run(patterns, status_then_diff("/a"))
    for _ in range(60):
        run(patterns, [status_then_diff("/a")[0], ("log", {}, {})])
    predicted = best(patterns, run(patterns, status_then_diff("/a")[:1]))
    assert predicted is not None
    assert predicted.tool == "log"


def test_random_calls_are_given_no_credit() -> None:
    patterns, choice = CallPatterns(), random.Random(1)
    paths = [str(choice.randrange(10**6)) for _ in range(400)]
    calls: list[Call] = [("read", {"path": path}, {}) for path in paths]
    history = run(patterns, calls)
    assert max((call.probability for call in patterns.predict(history)), default=0.0) < 0.05


def test_long_arguments_are_context_only() -> None:
    patterns = CallPatterns()
    content = "x" * 5_000
    write: Call = ("write", {"path": "/a", "content": content}, {})
    for _ in range(4):
        run(patterns, [write, ("read", {"path": "/a"}, {}), write])
    after_write = best(patterns, run(patterns, [write]))
    assert after_write is not None
    assert after_write.arguments == {"path": "/a"}
    assert all(call.tool != "write" for call in patterns.predict(run(patterns, [write])))


def test_rows_are_bounded() -> None:
    patterns = CallPatterns()
    for number in range(3_000):
        run(patterns, [(f"t{number}", {}, {}), ("end", {}, {})])
    assert len(patterns) <= 2048
