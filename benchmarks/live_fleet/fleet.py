"""Two real engines on CPU, their gateway, and generated sessions as their load."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from holdfast.bench.load import SendOptions
from holdfast.bench.model import KV_BYTES_PER_TOKEN, VOCAB_SIZE, build_tiny_model
from holdfast.bench.prompts import Alphabet
from holdfast.bench.replay import ReplayTarget, replay_sessions
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig
from holdfast.traces.selection import SessionSelection
from holdfast.workload.synthetic import iterate_sessions

__all__ = ["TOKEN", "Fleet", "running_fleet"]

TOKEN: Final = "a token of this run alone"
_MODEL: Final = "tiny"
_KV_TOKENS: Final = 8192
_MAX_MODEL_LEN: Final = 4096
_HOST_TIMES: Final = 3
_CONCURRENCY: Final = 28
_SESSIONS: Final = 200
_TOKEN_SCALE: Final = 0.03125
_TIME_SCALE: Final = 0.05
_GAP_CAP_S: Final = 60.0
_READY: Final = re.compile(r"gateway ready at (\S+); metrics at http://(\S+)/metrics")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs.

    Attributes:
        engines: Addresses of the engines.
        gateway: Address of the gateway, for clients.
        gateway_metrics: Host and port of its metrics.
        token: File with the token of the engines' routes.
        log: Decision log of both engines.
    """

    engines: tuple[str, ...]
    gateway: str
    gateway_metrics: str
    token: Path
    log: Path

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Send sessions while the context is open, more than the engines hold at once."""
        selection = SessionSelection(
            num_sessions=_SESSIONS,
            gap_cap_s=_GAP_CAP_S,
            max_model_len=_MAX_MODEL_LEN,
            token_scale=_TOKEN_SCALE,
            max_turns=12,
        )
        generated = (one for one in islice(iterate_sessions(0), 2000) if len(one.turns) > 3)
        sessions = selection.select(generated).sessions
        options = SendOptions(_CONCURRENCY, _TIME_SCALE, _TOKEN_SCALE, session_ids=True)
        target = ReplayTarget(self.gateway, _MODEL, None, Alphabet.for_vocabulary(VOCAB_SIZE))
        loop, stop = asyncio.new_event_loop(), asyncio.Event()

        def run() -> None:
            loop.run_until_complete(replay_sessions(target, sessions, options, stop=stop))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


@contextlib.contextmanager
def running_fleet(directory: Path, num_engines: int = 2) -> Iterator[Fleet]:
    """Start engines and gateway; ends them all."""
    model = build_tiny_model(directory / "model")
    token, log = directory / "token", directory / "decisions.log"
    token.write_text(TOKEN)
    token.chmod(0o600)
    host_bytes = _HOST_TIMES * _KV_TOKENS * KV_BYTES_PER_TOKEN
    config = HoldfastConfig(
        host_gib=host_bytes / 2**30, routes_token_file=str(token), decision_log=str(log)
    )
    options = EngineOptions(
        model=model,
        kv_tokens=_KV_TOKENS,
        max_model_len=_MAX_MODEL_LEN,
        config=config,
        extra_arguments=("--served-model-name", _MODEL),
    )
    servers = [
        EngineServer("holdfast", options, directory / f"engine-{number}.log")
        for number in range(num_engines)
    ]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        for server in servers:
            stack.callback(server.stop)
        list(pool.map(lambda server: server.start(), servers))
        urls = tuple(server.url for server in servers)
        gateway, metrics = stack.enter_context(_gateway(urls))
        yield Fleet(urls, gateway, metrics, token, log)


@contextlib.contextmanager
def _gateway(engines: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A gateway before the engines; its address, and host and port of its metrics."""
    command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0", "--admin-port", "0"]
    for url in engines:
        command += ["--engine", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = _READY.match(process.stdout.readline())
        assert ready is not None, "the gateway did not start"
        yield ready[1], ready[2]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
