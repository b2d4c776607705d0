"""The gateway's listening sockets."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, stream
from tests.waiting import LONGEST_S

from holdfast.bearer_token import BearerToken
from holdfast.gateway import serving
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.app import Gateway
from holdfast.gateway.engines import Engine
from holdfast.gateway.serving import Listening, runner_of, serve
from holdfast.gateway.tenants import ApiKeys


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of this machine and its key."""
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(made), "-keyout", str(key)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return made, key


async def test_clients_are_served_over_tls(certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(made, key)
    client_side = ssl.create_default_context(cafile=str(made))
    addresses: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    async with FakeEngine().running() as engine, aiohttp.ClientSession() as client:
        served = Gateway([Engine("e", engine.url)], ApiKeys({}))
        access = AdminAccess(BearerToken("0123456789abcdef"))
        where = Listening("127.0.0.1", 0, 0, server_side, admin=access)
        serving = asyncio.create_task(
            serve(served, where, lambda *found: addresses.set_result(found))
        )
        url, admin_url = await addresses
        assert (url[:8], admin_url[:7]) == ("https://", "http://")
        body = {"model": "m", "messages": []}
        async with client.post(f"{url}/v1/chat/completions", json=body, ssl=client_side) as answer:
            assert (answer.status, await answer.read()) == (200, b'{"ok": 1}')
        async with client.get(f"{admin_url}/engines") as answer:
            assert answer.status == 401
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.get(f"{url}/health", ssl=ssl.create_default_context())
        with pytest.raises(aiohttp.ClientError):
            await client.get(f"{url.replace('https', 'http')}/health")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost:"])
async def test_a_slow_head_is_cut_off_and_a_slow_answer_is_not(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_IDLE_S", 0.3)
    answer = stream(FIRST, b"data: [DONE]\n\n", pause_s=1.0)
    async with FakeEngine(answer).running() as engine, aiohttp.ClientSession() as client:
        runner = runner_of(Gateway([Engine("e", engine.url)], ApiKeys({})))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        body = {"model": "m", "messages": []}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with client.post(url, json=body) as answered:
            assert await answered.read() == FIRST + b"data: [DONE]\n\n"
        assert await asyncio.wait_for(reader.read(), LONGEST_S) == b""
        writer.close()
        await runner.cleanup()
