"""Runs the gateway for half an hour before clients that behave badly, and watches what it keeps.

python benchmarks/gateway_soak.py [--minutes N] [--warm-up-minutes N] [--rate N] [--output DIR]

Two engines without a model stream tokens at a fixed rate. Clients arrive at random, `--rate` a
second: agents whose conversations grow turn by turn, clients that vanish in their head, body or
answer, and slow readers of long answers. No session announces its end. Every five seconds the
gateway's process is sampled: resident memory, file descriptors, asyncio tasks, Python objects. The
lease of idle sessions is a minute, and a warm-up of five of them is left out. In one minute more,
300 clients at a time do nothing but connect and vanish.
Growth is the Theil-Sen slope of one-minute means after the warm-up, with its 95 % interval; what is
left is sampled once more when the clients have gone. Writes `gateway_soak.json` and
`gateway_soak.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from holdfast.gateway.app import Gateway
from holdfast.gateway.engines import Engine
from holdfast.gateway.serving import Listening, serve
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys
from holdfast.report.manifest import run_manifest

SAMPLE_S = 5.0
LEASE_S = 60.0
MESSAGE_BYTES = 4_000
KV_TOKENS = 400_000
EVENT_S = 0.05  # between tokens of an ordinary answer
LONG_BYTES = 4 << 20  # of an answer for slow readers, sent as fast as it is read
SLOW_READ_BYTES = 1 << 16
SLOW_READ_S = 0.5
SETTLE_S = 15.0
NUM_VANISHING = 300
VANISHING_S = 60.0
CHAT = "/v1/chat/completions"
KINDS = {"agent": 0.6, "vanish in request": 0.15, "vanish in answer": 0.15, "slow reader": 0.1}
FIGURES = {
    "rss_mib": "resident memory, MiB",
    "fds": "file descriptors",
    "tasks": "asyncio tasks",
    "objects": "Python objects",
}


# The engines.


async def answer(request: web.Request) -> web.StreamResponse:
    """Stream as many events as asked for; a long answer as fast as it is read."""
    body = await request.json()
    num_tokens = body["max_tokens"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if body.get("seed"):
        event = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"a" * 16_000)
        for _ in range(LONG_BYTES // len(event)):
            await response.write(event)
    else:
        for _ in range(num_tokens):
            await response.write(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
            await asyncio.sleep(EVENT_S)
    prompt_tokens = len(json.dumps(body["messages"])) // 4
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": num_tokens}
    last = {"choices": [{"finish_reason": "stop"}], "usage": usage}
    await response.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
    return response


async def metrics(request: web.Request) -> web.Response:
    del request
    labels = f'block_size="16",num_gpu_blocks="{KV_TOKENS // 16}"'
    return web.Response(text=f"vllm:cache_config_info{{{labels}}} 1.0\n")


async def health(request: web.Request) -> web.Response:
    del request
    return web.Response()


async def engine_main() -> None:
    """Serve on a free port and print it, until the process is told to end."""
    logging.getLogger("aiohttp.server").disabled = True  # that clients leave is what is tested
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post(CHAT, answer)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


# The gateway.


async def gateway_main(urls: list[str]) -> None:
    """Serve as `holdfast gateway` does, and print a sample of this process every so often."""
    process = psutil.Process()
    engines = [Engine(url.rpartition("/")[2], url) for url in urls]
    served = Gateway(engines, ApiKeys({}), GatewayLimits(lease_s=LEASE_S))

    async def sample() -> None:
        while True:
            gc.collect()
            sampled = {
                "rss_mib": process.memory_info().rss / 2**20,
                "fds": process.num_fds(),
                "tasks": len(asyncio.all_tasks()),
                "objects": len(gc.get_objects()),
            }
            print(json.dumps(sampled), flush=True)
            await asyncio.sleep(SAMPLE_S)

    def ready(url: str, admin_url: str) -> None:
        print(json.dumps({"url": url, "admin_url": admin_url}), flush=True)

    sampling = asyncio.create_task(sample())
    await serve(served, Listening("127.0.0.1", 0, 0), ready)
    sampling.cancel()


# The clients.


class Clients:
    """Clients that arrive at random and behave badly.

    Args:
        url: The gateway's.
        source: Draws what they do.

    Attributes:
        counted: Clients by kind, and answers by status.
    """

    def __init__(self, url: str, source: random.Random) -> None:
        self.counted: Counter[str] = Counter()
        self._url = url
        self._source = source
        self._num_sessions = 0
        self._kinds: dict[str, Callable[[aiohttp.ClientSession], Awaitable[None]]] = {
            "agent": self._agent,
            "vanish in request": self._vanish_in_request,
            "vanish in answer": self._vanish_in_answer,
            "slow reader": self._read_slowly,
        }

    async def run(self, rate_per_s: float, seconds: float) -> None:
        """Let clients come for so long; those that have not left by then are ended."""
        ends_s = time.monotonic() + seconds
        open_clients: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            while time.monotonic() < ends_s:
                await asyncio.sleep(self._source.expovariate(rate_per_s))
                (kind,) = self._source.choices(list(KINDS), list(KINDS.values()))
                self.counted[kind] += 1
                task = asyncio.create_task(self._one(kind, client))
                open_clients.add(task)
                task.add_done_callback(open_clients.discard)
            for task in open_clients:
                task.cancel()
            await asyncio.gather(*open_clients, return_exceptions=True)

    async def vanish(self, number: int, seconds: float) -> None:
        """Let so many at a time come and vanish, the next at once."""
        connector = aiohttp.TCPConnector(limit=0)

        async def one() -> None:
            while True:
                kind = self._source.choice(["vanish in request", "vanish in answer"])
                self.counted["vanished in the last minute"] += 1
                await self._one(kind, client)

        async with aiohttp.ClientSession(connector=connector) as client:
            tasks = [asyncio.create_task(one()) for _ in range(number)]
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, kind: str, client: aiohttp.ClientSession) -> None:
        try:
            await self._kinds[kind](client)
        except (aiohttp.ClientError, ConnectionError) as error:
            self.counted[type(error).__name__] += 1

    def _message(self) -> dict[str, str]:
        text = self._source.randbytes(MESSAGE_BYTES // 2).hex()
        return {"role": "user", "content": text}

    def _post(
        self, client: aiohttp.ClientSession, messages: list[dict[str, str]], **body: Any
    ) -> Any:
        self._num_sessions += 1
        sent = {"model": "m", "stream": True, "messages": messages, "max_tokens": 20, **body}
        headers = {"x-session-id": messages[0]["content"][:16]}
        return client.post(self._url + CHAT, json=sent, headers=headers)

    async def _agent(self, client: aiohttp.ClientSession) -> None:
        """A few turns, with tools between; then it is gone without a word."""
        messages = [self._message()]
        for _ in range(self._source.randint(1, 8)):
            num_tokens = self._source.randint(2, 100)
            async with self._post(client, messages, max_tokens=num_tokens) as answered:
                self.counted[str(answered.status)] += 1
                await answered.read()
            await asyncio.sleep(self._source.expovariate(1.0))
            messages += [{"role": "assistant", "content": "a"}, self._message()]

    async def _vanish_in_request(self, client: aiohttp.ClientSession) -> None:
        del client
        host, _, port = self._url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n" % CHAT.encode()
        writer.write((head + b"{" * 8000)[: self._source.randint(0, 8000)])
        await writer.drain()
        await asyncio.sleep(self._source.random())
        writer.transport.abort()

    async def _vanish_in_answer(self, client: aiohttp.ClientSession) -> None:
        """Leaves while its request is held, computed or answered."""
        stay_s = self._source.expovariate(1.0)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(stay_s),
                self._post(client, [self._message()], max_tokens=200) as answered,
            ):
                self.counted[str(answered.status)] += 1
                async for _ in answered.content.iter_any():
                    pass

    async def _read_slowly(self, client: aiohttp.ClientSession) -> None:
        """Reads a long answer slower than it comes; half of them leave on the way."""
        num_reads = self._source.randint(1, 2 * LONG_BYTES // SLOW_READ_BYTES)
        async with self._post(client, [self._message()], seed=1) as answered:
            self.counted[str(answered.status)] += 1
            for _ in range(num_reads):
                if not await answered.content.read(SLOW_READ_BYTES):
                    break
                await asyncio.sleep(SLOW_READ_S)


# The run.


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def soak(
    process: subprocess.Popen[str], options: argparse.Namespace
) -> tuple[list[dict[str, float]], Counter[str], str]:
    """Samples of the gateway, what clients counted, and the gateway's own last metrics."""
    assert process.stdout is not None
    samples: list[dict[str, float]] = []
    address: dict[str, str] = {}
    is_ready = asyncio.Event()
    began_s = time.monotonic()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in process.stdout or ():
            said = json.loads(line)
            if "url" in said:
                address.update(said)
                loop.call_soon_threadsafe(is_ready.set)
            else:
                samples.append({"t_s": time.monotonic() - began_s, **said})

    reading = loop.run_in_executor(None, read)
    await is_ready.wait()
    clients = Clients(address["url"], random.Random(options.seed))
    await clients.run(options.rate, 60.0 * options.minutes)
    await clients.vanish(NUM_VANISHING, VANISHING_S)
    await asyncio.sleep(SETTLE_S)
    async with (
        aiohttp.ClientSession() as client,
        client.get(address["admin_url"] + "/metrics") as answered,
    ):
        text = await answered.text()
    await asyncio.sleep(SAMPLE_S)
    process.send_signal(signal.SIGTERM)
    await reading
    return samples, clients.counted, text


def growth(samples: list[dict[str, float]], name: str, warm_up_s: float, end_s: float) -> Any:
    """Slope of one-minute means after the warm-up, and its interval (a minute)."""
    from scipy.stats import theilslopes

    minutes: dict[int, list[float]] = {}
    for each in samples:
        if warm_up_s <= each["t_s"] <= end_s:
            minutes.setdefault(int(each["t_s"] // 60), []).append(each[name])
    means = [statistics.fmean(values) for values in minutes.values()]
    found = theilslopes(means, list(minutes), alpha=0.95)
    return {"slope": found.slope, "low": found.low_slope, "high": found.high_slope}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up-minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--gateway", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine or options.gateway:
        asyncio.run(engine_main() if options.engine else gateway_main(options.gateway))
        return
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(2):
            engine = stack.enter_context(running("--engine"))
            assert engine.stdout is not None
            urls.append(f"http://127.0.0.1:{int(engine.stdout.readline())}")
        gateway = stack.enter_context(running("--gateway", *urls))
        samples, counted, text = asyncio.run(soak(gateway, options))
    write(samples, counted, text, options)


def write(
    samples: list[dict[str, float]],
    counted: Counter[str],
    text: str,
    options: argparse.Namespace,
) -> None:
    """Write the table, and every sample."""
    warm_up_s, end_s = 60.0 * options.warm_up_minutes, 60.0 * options.minutes
    slopes = {name: growth(samples, name, warm_up_s, end_s) for name in FIGURES}
    lines = [
        "| | at start | after warm-up | at the end | all clients gone | growth a minute | 95 % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    during = [each for each in samples if warm_up_s <= each["t_s"] <= end_s]
    for name, shown in FIGURES.items():
        at = [samples[0], during[0], during[-1], samples[-1]]
        slope = slopes[name]
        cells = [f"{each[name]:,.0f}" for each in at]
        cells += [f"{slope['slope']:.3f}", f"{slope['low']:.3f} to {slope['high']:.3f}"]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    lines += ["", "Clients and answers:", ""]
    lines += [f"- {name}: {number:,}" for name, number in sorted(counted.items())]
    ends = [
        line
        for line in text.splitlines()
        if line.startswith(("holdfast_gateway_requests_", "holdfast_gateway_held_tokens"))
    ]
    lines += ["", "The gateway's gauges when the clients have gone:", ""]
    lines += [f"- `{line}`" for line in ends]
    options.output.mkdir(parents=True, exist_ok=True)
    arguments = {name: getattr(options, name) for name in ("minutes", "rate", "seed")}
    arguments |= {"warm_up_minutes": options.warm_up_minutes, "lease_s": LEASE_S}
    document = {
        "manifest": run_manifest(arguments=arguments, runs=()),
        "growth_per_minute": slopes,
        "counted": counted,
        "samples": samples,
    }
    stem = options.output / "gateway_soak"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
