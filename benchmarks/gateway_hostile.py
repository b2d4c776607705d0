"""Measures what a hostile tenant takes from nine others at the gateway.

python benchmarks/gateway_hostile.py [--seeds N] [--seconds N] [--output DIR]

`holdfast gateway` with API keys before two engines without a model (`timed_engine.py`). Ten tenants
have two coding agents each, at 1.5 times what both caches hold. In `hostile` the tenth tenant does
all this at once beside its agents:

flood: forty requests at a time, each with a new prompt of 40 KB; half of them leave early.
ids: these and its agents name the sessions of the other tenants as theirs.
hints: they claim the top priority, a week of retention, and an immediate return.
connections: two hundred are left open in the middle of a head or a body.
bodies: ten a second are nested 900 deep, or are no JSON.

In `loaded` the tenth sends as many requests and does nothing else of this. In `silent` it has its
two agents only, and in `alone` there are nine tenants. Figures are of the nine tenants' turns,
relative to `loaded` of the same seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.report.manifest import run_manifest

CASES = ("alone", "silent", "loaded", "hostile")
NUM_TENANTS = 10
NUM_AGENTS = 2
NUM_TURNS = 8
FIRST_BYTES, GROWTH_BYTES = 8_000, 4_000
OUTPUT_TOKENS = 20
TOOL_S = 0.3
NUM_FLOODING = 40
FLOOD_BYTES = 40_000
NUM_OPEN = 200
ODD_PER_S = 10.0
WARM_UP_S = 10.0
LONGEST_S = 120.0
CHAT = "/v1/chat/completions"
ENGINE = Path(__file__).with_name("timed_engine.py")
HINTS = {
    "agent_hint": {"priority": 1000, "latency_sensitivity": 1000},
    "nvext": {"agent_hints": {"priority": 1000, "speculative_prefill": True}},
    "retention_directives": [{"start": 0, "priority": 100, "duration": 604_800}],
}
HOSTILE = ("flood", "ids", "hints", "connections", "bodies")


class Tenants:
    """All clients of one run.

    Args:
        url: The gateway's.
        case: One of `CASES`.
        source: Draws prompts and pauses.

    Attributes:
        ttft_s: Times to the first byte of the nine tenants' answers (s).
        latency_s: Times to their end (s).
        counted: Their answers by status; those of the tenth as `tenth 200` and so on.
    """

    def __init__(self, url: str, case: str, source: random.Random) -> None:
        self.ttft_s: list[float] = []
        self.latency_s: list[float] = []
        self.counted: Counter[str] = Counter()
        self._url = url
        self._case = case
        self._source = source
        self._counts_from_s = 0.0
        self._open_sessions: dict[int, str] = {}

    async def run(self, seconds: float) -> None:
        """Let all clients send requests for some seconds, after a warm-up."""
        self._counts_from_s = time.monotonic() + WARM_UP_S
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=LONGEST_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            num_tenants = NUM_TENANTS - (self._case == "alone")
            running = [
                asyncio.create_task(self._agent(client, tenant))
                for tenant in range(num_tenants)
                for _ in range(NUM_AGENTS)
            ]
            if self._case in ("loaded", "hostile"):
                running += [asyncio.create_task(self._flood(client)) for _ in range(NUM_FLOODING)]
            if self._case == "hostile":
                running += [asyncio.create_task(self._leave_open()) for _ in range(NUM_OPEN)]
                running.append(asyncio.create_task(self._send_odd_bodies(client)))
            await asyncio.sleep(WARM_UP_S + seconds)
            failed = [task.exception() for task in running if task.done()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        assert not failed, failed[0]

    async def _agent(self, client: aiohttp.ClientSession, tenant: int) -> None:
        """Sessions one after the other, each of some turns with a tool between them."""
        while True:
            name = self._source.randbytes(8).hex()
            messages = [self._message("system", FIRST_BYTES)]
            for _ in range(NUM_TURNS):
                messages.append(self._message("user", GROWTH_BYTES))
                self._open_sessions[tenant] = name
                await self._ask(client, tenant, name, messages)
                messages.append({"role": "assistant", "content": "a"})
                await asyncio.sleep(self._source.expovariate(1.0 / TOOL_S))

    async def _flood(self, client: aiohttp.ClientSession) -> None:
        while True:
            name = self._source.randbytes(8).hex()
            messages = [self._message("user", FLOOD_BYTES)]
            leaves_s = self._source.expovariate(1.0)
            is_leaving = self._case == "hostile" and self._source.random() < 0.5
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(leaves_s if is_leaving else LONGEST_S):
                    await self._ask(client, NUM_TENANTS - 1, name, messages)

    async def _ask(
        self, client: aiohttp.ClientSession, tenant: int, name: str, messages: list[dict[str, str]]
    ) -> None:
        body: dict[str, Any] = {"model": "m", "stream": True, "messages": messages}
        body["max_tokens"] = OUTPUT_TOKENS
        is_tenth = tenant == NUM_TENANTS - 1
        if is_tenth and self._case == "hostile":
            name = self._open_sessions[self._source.randrange(NUM_TENANTS - 1)]
            body |= HINTS
        headers = {"authorization": f"Bearer {key_of(tenant)}", "x-session-id": name}
        began_s = time.monotonic()
        async with client.post(self._url + CHAT, json=body, headers=headers) as answered:
            self.counted[f"{'tenth ' if is_tenth else ''}{answered.status}"] += 1
            await answered.content.readany()
            first_s = time.monotonic()
            await answered.read()
        if not is_tenth and began_s >= self._counts_from_s:
            self.ttft_s.append(first_s - began_s)
            self.latency_s.append(time.monotonic() - began_s)

    async def _leave_open(self) -> None:
        """Connections that never send a whole request, one after the other."""
        host, _, port = self._url.removeprefix("http://").partition(":")
        head = b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: 90000\r\n\r\n" % CHAT.encode()
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write((head + b'{"a": "' * 1000)[: self._source.randrange(5000)])
                await reader.read()
                writer.close()

    async def _send_odd_bodies(self, client: aiohttp.ClientSession) -> None:
        bodies = [b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}", b"{" * 1000, b"\xff" * 1000]
        headers = {"authorization": f"Bearer {key_of(NUM_TENANTS - 1)}"}
        while True:
            body = self._source.choice(bodies)
            async with client.post(self._url + CHAT, data=body, headers=headers) as answered:
                self.counted[f"odd {answered.status}"] += 1
            await asyncio.sleep(1.0 / ODD_PER_S)

    def _message(self, role: str, num_bytes: int) -> dict[str, str]:
        return {"role": role, "content": self._source.randbytes(num_bytes // 2).hex()}


def key_of(tenant: int) -> str:
    return f"key-of-tenant-{tenant}-long"


@contextlib.contextmanager
def running(*command: str) -> Iterator[str]:
    """A process; yields the first line that it prints."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def measured(case: str, seed: int, seconds: float) -> dict[str, Any]:
    """One run with engines and a gateway of its own."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        keys = Path(directory) / "keys"
        keys.write_text("".join(f"{key_of(n)} t{n}\n" for n in range(NUM_TENANTS)))
        command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0"]
        command += ["--api-keys", str(keys)]
        for _ in range(2):
            port = int(stack.enter_context(running(sys.executable, str(ENGINE))))
            command += ["--engine", f"http://127.0.0.1:{port}"]
        line = stack.enter_context(running(*command))
        port = int(line.split(";")[0].rsplit(":", 1)[1])
        clients = Tenants(f"http://127.0.0.1:{port}", case, random.Random(seed))
        asyncio.run(clients.run(seconds))
    return {
        "case": case,
        "seed": seed,
        "turns": len(clients.ttft_s),
        "ttft_p50_s": statistics.median(clients.ttft_s),
        "ttft_p99_s": statistics.quantiles(clients.ttft_s, n=100)[98],
        "latency_p99_s": statistics.quantiles(clients.latency_s, n=100)[98],
        "answers": dict(sorted(clients.counted.items())),
        "load": os.getloadavg()[0],
    }


FIGURES = {
    "turns": "turns",
    "ttft_p50_s": "TTFT p50",
    "ttft_p99_s": "TTFT p99",
    "latency_p99_s": "latency p99",
}


def table(runs: list[dict[str, Any]]) -> str:
    """Figures of each case over those of `loaded`: medians, lowest and highest."""
    loaded = {run["seed"]: run for run in runs if run["case"] == "loaded"}
    lines = ["| tenth tenant | " + " | ".join(f"{name}, x" for name in FIGURES.values()) + " |"]
    lines.append("|---|" + "---:|" * len(FIGURES))
    for case in CASES:
        cells = []
        for figure in FIGURES:
            ratios = sorted(
                run[figure] / loaded[run["seed"]][figure]
                for run in runs
                if run["case"] == case and run["seed"] in loaded
            )
            if ratios:
                middle = statistics.median(ratios)
                cells.append(f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        if cells:
            lines.append(f"| {case} | " + " | ".join(cells) + " |")
    names = ("turns", "TTFT p50, s", "TTFT p99, s", "latency p99, s")
    middle = [statistics.median(run[figure] for run in loaded.values()) for figure in FIGURES]
    shown = [f"{name} {value:,.4g}" for name, value in zip(names, middle, strict=True)]
    lines += ["", f"`loaded`, medians of {len(loaded)} seeds: {'; '.join(shown)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        for case in CASES:
            runs.append(measured(case, seed, options.seconds))
            print(json.dumps(runs[-1]), flush=True)
    manifest = run_manifest(arguments=vars(options) | {"output": ""}, runs=())
    content = {"manifest": manifest | {"seeds": list(range(options.seeds))}, "runs": runs}
    (options.output / "gateway_hostile.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.output / "gateway_hostile.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
