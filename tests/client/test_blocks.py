"""Blocks as headers: nesting, tasks, threads and errors. No client is needed."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.client import agent, expect, extra_body, headers, session, tool, workflow
from holdfast.errors import ConfigError


def test_nothing_is_sent_outside_of_blocks() -> None:
    assert headers() == {}
    assert extra_body() == {}


def test_session_names_its_requests() -> None:
    with session("chat-7", agent_id="coder") as opened:
        assert headers() == {"X-Holdfast-Session-ID": "chat-7", "X-Holdfast-Agent-ID": "coder"}
        opened.is_last_turn = True
        assert headers()["X-Holdfast-Session-Final"] == "true"
    assert headers() == {}


def test_sessions_without_a_name_differ() -> None:
    with session() as first:
        pass
    with session() as second:
        pass
    assert first.id != second.id


def test_agent_has_a_session_of_its_own() -> None:
    with session("s"), agent("reviewer") as reviewer:
        sent = headers()
        assert sent["X-Holdfast-Agent-ID"] == "reviewer"
        assert sent["X-Holdfast-Session-ID"] == reviewer.id != "s"


def test_parent_without_requests_is_not_named() -> None:
    with session("outer"), agent("reviewer"):
        assert "X-Holdfast-Parent-Session-ID" not in headers()


def test_parent_of_another_process_is_named() -> None:
    with session(parent_id="remote"):
        assert headers()["X-Holdfast-Parent-Session-ID"] == "remote"


def test_session_in_a_session_is_another_one() -> None:
    with session("a", agent_id="coder"):
        with session("b"):
            assert headers() == {"X-Holdfast-Session-ID": "b"}
        assert headers()["X-Holdfast-Session-ID"] == "a"


def test_workflow_and_expectation_are_sent() -> None:
    with workflow("w"), agent("plan", session_id="p"), expect(turn_end="tool:bash", gap_s=1.5):
        assert headers() == {
            "X-Holdfast-Session-ID": "p",
            "X-Holdfast-Agent-ID": "plan",
            "X-Holdfast-Workflow-ID": "w",
            "X-Holdfast-Turn-End": "tool:bash",
            "X-Holdfast-Expected-Gap-S": "1.5",
        }


def test_expectation_ends_with_its_session() -> None:
    with session("a"), expect(retain_s=60):
        assert headers()["X-Holdfast-Retain-S"] == "60"
        with agent("b"):
            assert "X-Holdfast-Retain-S" not in headers()


def test_body_has_the_same_as_the_headers() -> None:
    with workflow("w"), session("s", agent_id="a") as opened, expect(retain_s=5):
        opened.is_last_turn = True
        assert extra_body() == {
            "session_id": "s",
            "vllm_xargs": {
                "holdfast_session_id": "s",
                "holdfast_agent_id": "a",
                "holdfast_workflow_id": "w",
                "holdfast_final": True,
                "holdfast_retain_s": 5.0,
            },
        }


def test_error_in_a_block_passes_and_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), session("s"), agent("a"), tool("bash"):
        raise ZeroDivisionError
    assert headers() == {}


async def test_tasks_have_blocks_of_their_own() -> None:
    async def run(name: str) -> tuple[str, str]:
        with agent(name, session_id=f"s-{name}"):
            await asyncio.sleep(0)
            before = headers()["X-Holdfast-Session-ID"]
            await asyncio.sleep(0.001)
            return before, headers()["X-Holdfast-Session-ID"]

    with session("main"):
        found = await asyncio.gather(*(run(name) for name in "abc"))
        assert headers() == {"X-Holdfast-Session-ID": "main"}
    assert found == [("s-a", "s-a"), ("s-b", "s-b"), ("s-c", "s-c")]


async def test_to_thread_carries_the_session() -> None:
    with session("s"):
        assert (await asyncio.to_thread(headers))["X-Holdfast-Session-ID"] == "s"


def test_thread_has_the_session_of_a_copied_context() -> None:
    with session("s"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(headers).result() == {}
        copied = contextvars.copy_context()
        assert pool.submit(copied.run, headers).result()["X-Holdfast-Session-ID"] == "s"


async def test_block_may_end_in_another_context() -> None:
    async def turns() -> AsyncIterator[int]:
        with session("s"):
            yield 1

    generator = turns()
    await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
    await generator.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (" a b ", "a b"),
        ("100%", "100%"),
        ("Sitzung ü", "Sitzung %C3%BC"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_ids_fit_into_headers(given: str, sent: str) -> None:
    with session(given):
        assert headers()["X-Holdfast-Session-ID"] == sent


def test_long_ids_become_digests() -> None:
    with session("x" * 10_000) as one, session("x" * 10_001) as other:
        assert one.id.startswith("sha256:") and one.id != other.id


@pytest.mark.parametrize("wrong", ["", "  ", None, 7])
def test_empty_agent_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="agent_id"), agent(wrong):
        pass


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5", True])
def test_wrong_durations_are_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="expected_s"), tool("bash", expected_s=wrong):
        pass


def test_import_loads_the_standard_library_only() -> None:
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import holdfast.client\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(tops - {'holdfast'} - set(sys.stdlib_module_names)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("langgraph", "langgraph.config"),
        ("openai_agents", "agents"),
        ("opentelemetry", "opentelemetry.sdk.trace"),
    ],
)
def test_adapter_names_its_missing_package(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"holdfast.client.{module}", raising=False)
    with pytest.raises(ImportError, match=f"holdfast.client.{module} needs .* pip install"):
        importlib.import_module(f"holdfast.client.{module}")
