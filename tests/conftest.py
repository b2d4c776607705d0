"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, settings

from holdfast.traces.record import Session

# Before torch is imported, here and in servers: two processes run tests, and threads of one wait
# by spinning for those of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are shared and engines compile: the duration of an example proves nothing.
_ANY_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Each run takes the same examples; `make explore` looks for others.
settings.register_profile("holdfast", _ANY_TIME, derandomize=True)
settings.register_profile("explore", _ANY_TIME, max_examples=500, print_blob=True)
settings.load_profile("holdfast")

# Starting a server takes 20 s on an idle machine, and many times as long on a busy one.
_SERVER_TIMEOUT_S = 1800


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with tests that start servers; short ones then fill both workers."""
    for item in items:
        if item.get_closest_marker("live") and "live" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip("installs clients from npm; run `pytest -m live`"))
        if item.get_closest_marker("ray") and "ray" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip("needs Ray and minutes; run `make test-ray`"))
        if item.get_closest_marker("server") is not None:
            item.add_marker(pytest.mark.timeout(_SERVER_TIMEOUT_S))
    items.sort(key=lambda item: item.get_closest_marker("server") is None)


@pytest.fixture(scope="session")
def assert_prefix_identity() -> Callable[[Iterable[Session]], None]:
    """Checks that equal ids at a position have equal ids before it."""

    def check(sessions: Iterable[Session]) -> None:
        parents: dict[int, int | None] = {}
        for session in sessions:
            for turn in session.turns:
                assert len(turn.block_ids) == turn.prompt_tokens // session.block_size_tokens
                parent: int | None = None
                for block_id in turn.block_ids:
                    assert parents.setdefault(block_id, parent) == parent
                    parent = block_id

    return check
