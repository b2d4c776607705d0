"""Real engines that publish KV events, and gateways before them as processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer, ServedPolicy

__all__ = [
    "BLOCK_TOKENS",
    "KV_TOKENS",
    "MODEL",
    "GatewayProcess",
    "RealEngine",
    "real_engine",
    "real_engines",
    "started",
]

MODEL: Final = "m"
KV_TOKENS: Final = 4096
BLOCK_TOKENS: Final = 32
_HOST: Final = "127.0.0.1"
_READY = re.compile(r"gateway ready at (\S+); metrics at (\S+)/metrics")


@dataclass(frozen=True, slots=True)
class RealEngine:
    """A running engine.

    Attributes:
        server: The server.
        events: Where it publishes its KV events.
        replay: Where it repeats them.
    """

    server: EngineServer
    events: str
    replay: str

    @property
    def name(self) -> str:
        """Its name at a gateway."""
        return self.server.url.removeprefix("http://")

    def kill(self) -> None:
        """End its processes at once, as a crash does."""
        process = self.server._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def real_engines(directory: Path, *policies: ServedPolicy) -> Iterator[list[RealEngine]]:
    """Engines of one model, so that each gives the same answers."""
    options = EngineOptions(
        model=build_tiny_model(directory / "model"),
        kv_tokens=KV_TOKENS,
        max_model_len=KV_TOKENS // 2,
        block_size_tokens=BLOCK_TOKENS,
        extra_arguments=(
            *("--served-model-name", MODEL),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        ),
    )
    with started(
        [real_engine(policy, options, directory / f"{policy}.log") for policy in policies]
    ) as engines:
        yield engines


@contextlib.contextmanager
def started(engines: list[RealEngine]) -> Iterator[list[RealEngine]]:
    """The engines, which start at once and run meanwhile."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        for engine in engines:
            stack.callback(engine.server.stop)
        list(pool.map(lambda engine: engine.server.start(), engines))
        yield engines


def real_engine(policy: ServedPolicy, options: EngineOptions, log: Path) -> RealEngine:
    """An engine that will publish its KV events."""
    events, replay = (f"tcp://{_HOST}:{_free_port()}" for _ in range(2))
    published = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": events.replace(_HOST, "*"),
        "replay_endpoint": replay.replace(_HOST, "*"),
    }
    arguments = (*options.extra_arguments, "--kv-events-config", json.dumps(published))
    options = dataclasses.replace(options, extra_arguments=arguments)
    return RealEngine(EngineServer(policy, options, log), events, replay)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class GatewayProcess:
    """`holdfast gateway` before some engines, as a context manager that leaves no process.

    Attributes:
        url: For clients.
    """

    def __init__(self, engines: Sequence[RealEngine], *arguments: str) -> None:
        command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0", "--admin-port", "0"]
        for each in engines:
            command += ["--engine", each.server.url]
            command += ["--kv-events", f"{each.name}={each.events},{each.replay}"]
        self._num_engines = len(engines)
        self._process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> GatewayProcess:
        assert self._process.stdout is not None
        ready = _READY.match(self._process.stdout.readline())
        assert ready is not None
        self.url, self._admin_url = ready.groups()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def engines(self) -> list[dict[str, Any]]:
        """What operators see of its engines."""
        with urllib.request.urlopen(self._admin_url + "/engines", timeout=LONGEST_S) as page:
            found: list[dict[str, Any]] = json.load(page)["engines"]
        return found

    def metrics(self) -> str:
        """Its metrics."""
        with urllib.request.urlopen(self._admin_url + "/metrics", timeout=LONGEST_S) as page:
            text: str = page.read().decode()
        return text

    def wait_for_events(self) -> None:
        """Wait until it has read the KV events of all engines."""
        until(lambda: all(engine["kv_events"] for engine in self.engines()))
