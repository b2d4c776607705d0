"""The real command, serving by HTTP to MCP's own client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp import ClientSession
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from tests.waiting import until

SERVER = Path(__file__).with_name("files_server.py")
PROXY = (sys.executable, "-m", "holdfast", "mcp-proxy")
KEYS = {"a": "key-of-tenant-a-0123", "b": "key-of-tenant-b-0123"}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@contextmanager
def serving(folder: Path, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
    """The proxy's URL; its standard error goes to a file."""
    command = command or (sys.executable, str(SERVER), str(folder / "log"))
    arguments = [*PROXY, "--port", "0", *options, "--", *command]
    with (
        (folder / "stderr").open("w") as errors,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True) as proxy,
    ):
        assert proxy.stdout is not None
        ready = re.search(r"ready at (\S+)", proxy.stdout.readline())
        assert ready is not None, (folder / "stderr").read_text()
        try:
            yield ready[1]
        finally:
            proxy.send_signal(signal.SIGTERM)
            assert proxy.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A proxy with two tenants, metrics, and early calls."""
    keys = folder / "keys"
    keys.write_text("\n".join(f"{key} {tenant}" for tenant, key in KEYS.items()))
    options = ("--api-keys", str(keys), "--allow-origin", "http://localhost:6274")
    with serving(folder, *options, "--metrics-port", "0", "--speculate") as url:
        yield url


@asynccontextmanager
async def connected(url: str, tenant: str) -> AsyncIterator[ClientSession]:
    headers = {"Authorization": f"Bearer {KEYS[tenant]}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as client,
        streamable_http_client(url, http_client=client) as streams,
        ClientSession(*streams) as session,
    ):
        await session.initialize()
        await session.list_tools()
        yield session


async def ask(session: ClientSession, tool: str, **arguments: Any) -> str:
    answer = await session.call_tool(tool, arguments)
    text: str = answer.model_dump(mode="json")["content"][0]["text"]
    return text


def post(url: str, tenant: str | None = "a", **headers: str) -> httpx.Response:
    sent = HEADERS | headers
    if tenant is not None:
        sent["Authorization"] = f"Bearer {KEYS[tenant]}"
    return httpx.post(url, json=INITIALIZE, headers=sent, timeout=60)


def test_sessions_and_tenants_share_no_result(url: str, folder: Path) -> None:
    path = folder / "a.txt"
    path.write_text("first")
    time.sleep(1.05)

    async def run() -> None:
        async with (
            connected(url, "a") as one,
            connected(url, "a") as two,
            connected(url, "b") as other,
        ):
            for session in (one, one, two, two, other, other):
                assert await ask(session, "read_file", path=str(path)) == "first"

    anyio.run(run)

    assert (folder / "log").read_text().splitlines().count("read a.txt") == 3


def test_calls_of_a_sequence_are_made_early(url: str, folder: Path) -> None:
    """A client that thinks for half a second after each call of a fixed sequence."""

    async def run() -> list[float]:
        waited = []
        for _ in range(5):
            async with connected(url, "b") as session:
                for step in range(4):
                    began_s = time.monotonic()
                    assert await ask(session, "count_files", step=step) == f"step {step}"
                    waited.append(time.monotonic() - began_s)
                    await anyio.sleep(0.5)
        return waited

    waited = anyio.run(run)

    metrics = metrics_of(folder)
    assert metrics['holdfast_mcp_early_calls_total{outcome="used"}'] >= 3
    assert metrics["holdfast_mcp_early_saved_seconds_total"] >= 0.6
    assert min(waited[-3:]) < min(waited[:4])


def metrics_of(folder: Path) -> dict[str, float]:
    where = re.search(r"metrics at (\S+)", (folder / "stderr").read_text())
    assert where is not None
    lines = httpx.get(where[1], timeout=60).text.splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def test_session_of_another_tenant_does_not_exist(url: str) -> None:
    opened = post(url, "a")
    assert opened.status_code == 200
    number = opened.headers["mcp-session-id"]
    assert post(url, "b", **{"mcp-session-id": number}).status_code == 404
    assert post(url, "a", **{"mcp-session-id": "unknown"}).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:6274"}, 200),
        ({"mcp-protocol-version": "2026-07-28"}, 400),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
def test_requests_are_checked(url: str, headers: dict[str, str], status: int) -> None:
    assert post(url, **headers).status_code == status


def test_wrong_key_is_refused(url: str) -> None:
    refused = post(url, None)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert post(url, None, Authorization="Bearer wrong-key-0123456789").status_code == 401
    assert httpx.post(url.replace("/mcp", "/"), json={}, timeout=60).status_code == 404


def test_first_request_has_to_be_initialize(url: str, folder: Path) -> None:
    sent = HEADERS | {"Authorization": f"Bearer {KEYS['a']}"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert httpx.post(url, json=body, headers=sent, timeout=60).status_code == 400
    assert httpx.post(url, content=b"{", headers=sent, timeout=60).status_code == 400
    large = {**body, "params": {"x": "y" * 5_000_000}}
    assert httpx.post(url, json=large, headers=sent, timeout=60).status_code == 413


def test_client_that_asks_for_a_newer_version_agrees_on_one(tmp_path: Path) -> None:
    async def run() -> None:
        async with Client(address) as client:
            answer = await client.call_tool("count_files", {"step": 1})
            assert answer.content[0].text == "step 1"  # type: ignore[union-attr]

    with serving(tmp_path) as address:
        anyio.run(run)
    assert "answered 0 of 1 tool calls" in (tmp_path / "stderr").read_text()


def test_server_that_cannot_be_started_fails_its_session_only(tmp_path: Path) -> None:
    missing = (str(tmp_path / "missing"),)
    with serving(tmp_path, command=missing) as url:
        for _ in range(2):
            answer = httpx.post(url, json=INITIALIZE, headers=HEADERS, timeout=60)
            assert answer.status_code == 502
    assert "cannot be started" in (tmp_path / "stderr").read_text()


def test_servers_end_with_the_proxy(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = f"import os, sys; open({str(pids)!r}, 'w').write(str(os.getpid())); sys.stdin.read()"
    with serving(tmp_path, command=(sys.executable, "-c", program)) as url:
        with pytest.raises(httpx.ReadTimeout):  # it never answers
            httpx.post(url, json=INITIALIZE, headers=HEADERS, timeout=2)
        pid = int(until(lambda: pids.exists() and pids.read_text()))
    until(lambda: not _is_running(pid))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_wrong_use_of_http_says_what_is_wrong(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("short a")
    for options, error in (
        (("--api-keys", str(keys)), "--api-keys is for serving by HTTP"),
        (("--allow-origin", "http://x"), "--allow-origin is for serving by HTTP"),
        (("--port", "0", "--host", "0.0.0.0"), "lets everyone in"),
        (("--port", "0", "--api-keys", str(keys)), "shorter than"),
        (("--port", "0", "--host", "192.0.2.1", "--api-keys", str(keys)), "shorter than"),
    ):
        ended = subprocess.run(
            [*PROXY, *options, "--", "x"], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 2, ended.stderr
        assert error in ended.stderr
        assert "Traceback" not in ended.stderr
