"""Measures what the gateway adds before an engine that answers at once.

python benchmarks/gateway_overhead.py [--seconds N] [--rounds N] [--output DIR]

Requests have prompts of 220 KB, as in llm-d-router's issue 1109: 200 sessions, each a conversation
that grows by a turn a request. The engine is a bare protocol that answers a fixed stream. Load
generator, engine and proxy are processes of one machine. A second gateway has all policies on:
canonical prompts with all rules, quotas, tool rules and budgets that are not used up, warm-ups,
fairness, and API keys for their tenants. Closed loops at several concurrencies,
directly and through each proxy in turn, several rounds; then an open loop of 100 requests a second,
and 500 streams that stay open after their first event, for the memory that each takes.
nginx, where it is installed, is the floor: it reads nothing and chooses round robin. CPU seconds a
request of the proxy's process do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from holdfast.report.manifest import run_manifest

PROMPT_BYTES = 220_000
MESSAGE_BYTES = 2_000
NUM_SESSIONS = 200
CONCURRENCIES = (1, 20, 100, 200)
OPEN_RATE_PER_S = 100.0
NUM_STREAMS = 500
RULES = Path(__file__).parents[1] / "examples" / "tool-rules.toml"
BUDGETS = ("turns", "tokens", "repeats")
POLICIES = """
[tenant-quotas]
requests_per_min = 1e9
tokens_per_min = 1e12
max_concurrent = 100_000
{rules}
[canonical-prompt]
rules = ["billing", "tool-order", "tool-form", "dates", "git-status", "inline-system"]

[warm-ups]
tenants = ["t0"]

[fairness]
by = "sessions"
"""
NUM_TENANTS = 4
HOLDS = b"x-unfinished"  # a header by which the engine leaves its answer unfinished
EVENTS = (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b"data: [DONE]\n\n")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = [b"%x\r\n%s\r\n" % (len(event), event) for event in (*EVENTS, b"")]
ANSWER = HEAD + b"".join(CHUNKS)


class Engine(asyncio.Protocol):
    """Answers each request as soon as its body is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = transport
        self._buffer = bytearray()
        self._missing = -1

    def data_received(self, data: bytes) -> None:
        """Answer if the body is complete."""
        if self._missing >= 0:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
            self._missing = int(length or 0) - (len(self._buffer) - end - 4)
            self._answer = HEAD + CHUNKS[0] if HOLDS in head else ANSWER
            self._buffer.clear()
        if self._missing <= 0:
            self._missing = -1
            self._transport.write(self._answer)  # type: ignore[attr-defined]


def engine_main() -> None:
    """Serve on a free port and print it."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Engine, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


@dataclass(frozen=True, slots=True)
class Sample:
    """One closed or open loop.

    Attributes:
        rate_per_s: Answers a second.
        ttft_p50_ms: Median time to the first byte of an answer (ms).
        ttft_p99_ms: Its 99th percentile (ms).
        cpu_ms: CPU time of the proxy a request (ms); 0 without one.
        memory_mib: Resident memory of the proxy at the end (MiB).
        load: Processes that wanted a core at the end, others' as well (one-minute average).
    """

    rate_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    cpu_ms: float
    memory_mib: float
    load: float


def bodies() -> list[bytes]:
    """One request a session."""
    num_messages = PROMPT_BYTES // MESSAGE_BYTES
    head = {"model": "m", "stream": True, "max_tokens": 1}
    found = []
    for session in range(NUM_SESSIONS):
        line = f'    print("session {session:05d}")  # as code is\n'
        text = line * (MESSAGE_BYTES // len(json.dumps(line)))
        messages = [{"role": "user", "content": f"{n}\n{text}"} for n in range(num_messages)]
        found.append(json.dumps({**head, "messages": messages}).encode())
    return found


class Load:
    """Sends requests over connections that stay open, and times the first bytes."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._next = 0
        self.ttft_s: list[float] = []

    def _take(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began_s = time.perf_counter()
        writer.write(self._take())
        await reader.readuntil(b"\r\n\r\n")
        self.ttft_s.append(time.perf_counter() - began_s)
        await reader.readuntil(b"0\r\n\r\n")

    async def closed(self, concurrency: int, seconds: float) -> float:
        """Keep so many requests in flight; returns the seconds that passed."""
        ends_s = time.perf_counter() + seconds

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            while time.perf_counter() < ends_s:
                await self._one(reader, writer)
            writer.close()

        began_s = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        return time.perf_counter() - began_s

    async def open(self, rate_per_s: float, seconds: float) -> float:
        """Begin a request every so often, whatever is in flight; returns the seconds."""
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def client() -> None:
            pair = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", self._port)
            await self._one(*pair)
            idle.append(pair)

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate_per_s * seconds)):
                await asyncio.sleep(began_s + number / rate_per_s - time.perf_counter())
                group.create_task(client())
        for _, writer in idle:
            writer.close()
        return time.perf_counter() - began_s


def measure(port: int, process: psutil.Process | None, concurrency: int, seconds: float) -> Sample:
    """One loop; a concurrency of 0 is the open one."""
    load = Load(port, requests_of())
    before_s = cpu_s(process)
    run = load.closed(concurrency, seconds) if concurrency else load.open(OPEN_RATE_PER_S, seconds)
    elapsed_s = asyncio.run(run)
    times_ms = sorted(1e3 * t for t in load.ttft_s)
    return Sample(
        rate_per_s=len(times_ms) / elapsed_s,
        ttft_p50_ms=statistics.median(times_ms),
        ttft_p99_ms=times_ms[int(0.99 * (len(times_ms) - 1))],
        cpu_ms=1e3 * (cpu_s(process) - before_s) / len(times_ms),
        memory_mib=memory_mib(process),
        load=os.getloadavg()[0],
    )


def requests_of(*headers: bytes) -> list[bytes]:
    """The requests, one a session."""
    return [
        b"\r\n".join(
            [
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json",
                *(b"x-session-id: s%d" % number, b"content-length: %d" % len(body), *headers),
                b"x-api-key: " + key_of(number).encode(),
                b"\r\n",
            ]
        )
        + body
        for number, body in enumerate(bodies())
    ]


def key_of(number: int) -> str:
    """The API key of a session's tenant; a gateway without keys passes it on."""
    return f"key-of-tenant-{number % NUM_TENANTS}-long"


def stream_kib(port: int, process: psutil.Process) -> float:
    """Memory of a proxy for each of many open streams (KiB)."""

    async def opened() -> float:
        before_mib = memory_mib(process)
        writers = []
        requests = requests_of(HOLDS + b": 1")
        for number in range(NUM_STREAMS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(requests[number % len(requests)])
            await reader.readuntil(EVENTS[0])
            writers.append(writer)
        grown_mib = memory_mib(process) - before_mib
        for writer in writers:
            writer.close()
        return 1024 * grown_mib / NUM_STREAMS

    return asyncio.run(opened())


def memory_mib(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    family = [process, *process.children(recursive=True)]
    return float(sum(each.memory_info().rss for each in family)) / 2**20


def cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    family = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextlib.contextmanager
def engines(number: int) -> Iterator[list[int]]:
    """Ports of so many engines."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(number):
            process = stack.enter_context(running(sys.executable, __file__, "--engine"))
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        yield ports


@contextlib.contextmanager
def gateway(ports: list[int], *options: str) -> Iterator[tuple[int, psutil.Process]]:
    addresses = [part for p in ports for part in ("--engine", f"http://127.0.0.1:{p}")]
    command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0", *addresses, *options]
    with running(*command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(line.split(";")[0].rsplit(":", 1)[1]), psutil.Process(process.pid)


def unused_rules() -> str:
    """The rules of the example, with budgets that are never used up."""
    lines = RULES.read_text().splitlines()
    kept = [each for each in lines if not each.startswith(BUDGETS)]
    at = kept.index("[tool-rules]") + 1
    budgets = [f"{name} = 1_000_000_000_000" for name in BUDGETS]
    return "\n".join([*kept[:at], *budgets, *kept[at:]])


@contextlib.contextmanager
def with_all_policies(ports: list[int]) -> Iterator[tuple[int, psutil.Process]]:
    with tempfile.TemporaryDirectory() as directory:
        policies, keys = Path(directory) / "policies.toml", Path(directory) / "keys"
        policies.write_text(POLICIES.format(rules=unused_rules()))
        keys.write_text("".join(f"{key_of(n)} t{n}\n" for n in range(NUM_TENANTS)))
        options = ("--policies", str(policies), "--api-keys", str(keys))
        with gateway(ports, *options) as found:
            yield found


@contextlib.contextmanager
def nginx(ports: list[int]) -> Iterator[tuple[int, psutil.Process]]:
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        servers = "".join(f"server 127.0.0.1:{p}; " for p in ports)
        config = Path(directory) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/log;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 1000000000;"
            f" client_body_temp_path {directory}/b;"
            f" proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;"
            f" uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n"
            f"client_max_body_size 64m; client_body_buffer_size 1m;\n"
            f"upstream e {{ {servers} keepalive 512; keepalive_requests 1000000000; }}\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://e;"
            ' proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }\n'
        )
        with running("nginx", "-c", str(config), "-e", f"{directory}/log") as process:
            time.sleep(1.0)
            yield port, psutil.Process(process.pid)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine_main()
        return
    has_nginx = shutil.which("nginx") is not None
    names = ["direct", "gateway", "all policies", *(["nginx"] if has_nginx else [])]
    loads = (*CONCURRENCIES, 0)
    samples: dict[str, dict[int, list[Sample]]] = {n: {c: [] for c in loads} for n in names}
    streams: dict[str, float] = {}
    with engines(2) as ports, gateway(ports) as ours, with_all_policies(ports) as all_on:
        floor = nginx(ports) if has_nginx else contextlib.nullcontext((0, None))
        with floor as theirs:
            targets: dict[str, tuple[int, psutil.Process | None]] = {
                "direct": (ports[0], None),
                "gateway": ours,
                "all policies": all_on,
                "nginx": theirs,
            }
            for number in range(options.rounds):
                for concurrency in loads:
                    for name in names[number % len(names) :] + names[: number % len(names)]:
                        sample = measure(*targets[name], concurrency, options.seconds)
                        samples[name][concurrency].append(sample)
                        print(number, concurrency, name, sample, flush=True)
            for name in names[1:]:
                port, process = targets[name]
                assert process is not None
                streams[name] = stream_kib(port, process)
    write(samples, streams, options)


def write(
    samples: dict[str, dict[int, list[Sample]]],
    streams: dict[str, float],
    options: argparse.Namespace,
) -> None:
    """Write the table, medians over rounds, and every sample."""
    lines = [
        "| load | through | answers/s | TTFT p50, ms | TTFT p99, ms | CPU a request, ms |"
        " memory, MiB | load |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for concurrency in (*CONCURRENCIES, 0):
        load = f"{concurrency} at once" if concurrency else f"{OPEN_RATE_PER_S:g} a second"
        for name, by_load in samples.items():
            middle = [
                statistics.median(getattr(s, field) for s in by_load[concurrency])
                for field in Sample.__slots__
            ]
            cells = [f"{middle[0]:.0f}", *(f"{value:.2f}" for value in middle[1:4])]
            cells += [f"{middle[4]:.0f}", f"{middle[5]:.1f}"]
            lines.append("| " + " | ".join([load, name, *cells]) + " |")
    lines += ["", f"Memory for each of {NUM_STREAMS} open streams, KiB:", ""]
    lines += [f"- {name}: {kib:.0f}" for name, kib in streams.items()]
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "gateway_overhead"
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    manifest = run_manifest(
        arguments={"seconds": options.seconds, "rounds": options.rounds, "cores": os.cpu_count()},
        runs=[],
    )
    content: dict[str, Any] = {
        name: {
            str(load): [{f: getattr(s, f) for f in Sample.__slots__} for s in of_load]
            for load, of_load in by_load.items()
        }
        for name, by_load in samples.items()
    }
    document = (
        json.dumps({"manifest": manifest, "samples": content, "stream_kib": streams}, indent=1)
        + "\n"
    )
    stem.with_suffix(".json").write_text(document)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
