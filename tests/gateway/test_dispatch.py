"""The gateway's decisions together: placement, holding, engines that are lost."""

from __future__ import annotations

import math

from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.prompt_path import NO_PROMPT, PromptPath

BLOCK_TOKENS = 256


def path(session: str, num_blocks: int) -> PromptPath:
    return PromptPath.of((f"{session}{n}".encode() for n in range(num_blocks)), BLOCK_TOKENS)


def engine(name: str, num_blocks: int | None = 100, *, admits: bool = False) -> Engine:
    found = Engine(name, f"http://{name}", bytes_per_token=1.0, admits=admits)
    if num_blocks is not None:
        found.learn_capacity(num_blocks * BLOCK_TOKENS)
    return found


def overfull(only: Engine) -> Dispatcher:
    """A session at its tool, a turn that runs, and one that does not fit."""
    dispatcher = Dispatcher([only])
    for name, num_blocks in (("a", 70), ("r", 10)):
        dispatcher.place(name, name, path(name, num_blocks), 0.0)
        assert dispatcher.take(0.0) == [name]
    # Costs are unknown before the first prompt; then everything is due at once.
    for name in ("a", "r"):
        dispatcher.started(name, 7.0 if name == "a" else 8.0)
    for n in range(8):
        dispatcher.place(f"w{n}", "r", path("r", 11 + n), 8.0 + n)
        dispatcher.take(8.0 + n)
        dispatcher.started(f"w{n}", 8.1 + n)
        dispatcher.ended(f"w{n}", 8.2 + n, 10)
    dispatcher.ended("a", 20.0, 10)
    dispatcher.place("b", "b", path("b", 60), 20.0)
    return dispatcher


def test_what_does_not_fit_is_held_and_counts_as_load() -> None:
    only = engine("e")
    dispatcher = overfull(only)
    assert dispatcher.take(20.0) == []
    assert dispatcher.next_s(20.0) < math.inf
    num_held, held_tokens = dispatcher.held(only)
    assert num_held == 1
    assert held_tokens >= 60 * BLOCK_TOKENS
    assert only.queued_bytes == 60 * BLOCK_TOKENS
    assert only.num_in_flight == 2


def test_what_is_held_goes_when_its_engine_is_lost() -> None:
    only = engine("e")
    dispatcher = overfull(only)
    assert dispatcher.take(20.0) == []
    dispatcher.lost(only)
    assert dispatcher.take(20.0) == ["b"]
    assert dispatcher.held(only) == (0, 0)
    assert only.residency.held_bytes == 0
    for name in ("b", "r"):
        dispatcher.ended(name, 21.0)
    assert (only.num_in_flight, only.queued_bytes) == (0, 0)


def test_nothing_is_held_for_engines_that_admit_themselves() -> None:
    for each in (engine("e", admits=True), engine("e", None)):
        dispatcher = overfull(each)
        assert dispatcher.take(20.0) == ["b"]
        assert dispatcher.next_s(20.0) == math.inf


def test_without_a_wait_bound_nothing_is_held() -> None:
    only = engine("e")
    dispatcher = Dispatcher([only], max_wait_ratio=None)
    for n in range(5):
        dispatcher.place(str(n), str(n), path(str(n), 60), 0.0)
    assert dispatcher.take(0.0) == ["0", "1", "2", "3", "4"]


def test_a_request_without_a_prompt_is_never_held() -> None:
    dispatcher = overfull(engine("e"))
    dispatcher.place("models", None, NO_PROMPT, 20.0)
    assert dispatcher.take(20.0) == ["models"]
