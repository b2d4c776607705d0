"""Compares recorded clients' answers through the gateway with those of one engine.

python benchmarks/gateway_recordings.py --recordings DIR [--client NAME …] [--runs N]
                                        [--output DIR]

Sends recorded requests, in their recorded order and overlap, to `holdfast serve` on the CPU engine,
and then through `holdfast gateway` before two engines, `holdfast serve` and stock vLLM, whose
caches are empty. Each request goes twice: `scripted`, where the engine answers what was recorded,
tool calls included, and `as recorded`, the body untouched but for a short greedy answer. Gemini's
are sent to the gateway as recorded, and to the engine as the chat completions that they become.
Writes `gateway_recordings.json` and `gateway_recordings.md`:

- equal: same status and same answer as of the one engine, but for ids, times, cached tokens and
  where a stream is cut into events;
- same bytes: what the client got is what the engine sent to the gateway, byte for byte (Gemini's
  answers are made by the gateway);
- kept together: streams (an agent of a run, each side call) whose requests all went to one engine;
- cached: share of prompt tokens found in a cache, of requests whose answers have both figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from answer_relay import AnswerRelay, body_of
from answer_shape import first_difference, shape_of, text_of, tokens_of
from client_streams import replay_options
from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineServer
from holdfast.gateway.gemini import gemini_call_of, translated_request
from holdfast.report.manifest import run_manifest
from recorded_calls import (
    LENGTHS,
    Call,
    calls_of,
    client_of,
    in_recorded_order,
    passed_headers,
    scripted_body,
    scripts_of,
    stream_of,
)

TEMPLATE = "in place"
KV_TOKENS = 1_500_000
SHORT_TOKENS = 12
START_TIMEOUT_S = 3600.0  # the machine may be busy
NAME = "X-Call"
GEMINI = "/v1beta/"
CHAT = "/v1/chat/completions"
RECEIPT = "X-Holdfast-Engine"
FORMS = ("scripted", "as recorded")
_READY = re.compile(r"gateway ready at ([^\s;]+)")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request to be sent.

    Attributes:
        path: With its query.
        body: A JSON object.
        headers: The client's.
    """

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Got:
    """An answer.

    Attributes:
        status: HTTP status.
        body: All of it.
        receipt: The gateway's; "" of an engine.
    """

    status: int
    body: bytes
    receipt: str


def is_geminis(call: Call) -> bool:
    return str(call["path"]).startswith(GEMINI)


def shortest_runs(calls: list[Call], number: int | None) -> list[Call]:
    """The calls of so many runs, in order; None takes all."""
    sizes: Counter[str] = Counter()
    for call in calls:
        sizes[call["label"]] += len(str(call["body"]))
    taken = sorted(sizes, key=lambda label: (sizes[label], label))[:number]
    return sorted((c for c in calls if c["label"] in taken), key=lambda call: call["t"])


def request_of(call: Call, form: str, script: list[int]) -> Sent:
    """What a client sends."""
    headers = passed_headers(call)
    if is_geminis(call):
        config = {**(call["body"].get("generationConfig") or {}), "temperature": 0.0}
        body = call["body"] | {"generationConfig": config | {"maxOutputTokens": SHORT_TOKENS}}
        path = call["path"] if "?" in call["path"] else f"{call['path']}?alt=sse"
        return Sent(path, body, headers)
    if form == "scripted":
        return Sent(call["path"], scripted_body(call, script), headers)
    # The recordings' words are made up, and vLLM refuses one that it does not know to include.
    left_out = ("max_tokens", "include")
    body = {key: value for key, value in call["body"].items() if key not in left_out}
    body |= {LENGTHS[call["path"]]: SHORT_TOKENS, "temperature": 0}
    return Sent(call["path"], body, headers)


def as_chat(request: Sent) -> Sent:
    """A Gemini request as the engine knows it."""
    gemini = gemini_call_of(request.path.partition("?")[0])
    assert gemini is not None
    text = translated_request(gemini, json.dumps(request.body).encode())
    return Sent(CHAT, json.loads(text), {})


async def send_all(url: str, calls: list[Call], requests: list[Sent]) -> list[Got]:
    """Send a client's requests in recorded order; they are named by their number."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def send(number: int) -> Got:
            request = requests[number]
            headers = request.headers | {NAME: str(number)}
            async with http.post(url + request.path, json=request.body, headers=headers) as answer:
                body = await answer.read()
                return Got(answer.status, body, answer.headers.get(RECEIPT, ""))

        return await in_recorded_order(calls, send)


@contextlib.contextmanager
def gateway(urls: list[str]) -> Iterator[str]:
    """`holdfast gateway` before some engines; yields its address."""
    command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0"]
    for url in urls:
        command += ["--engine", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = _READY.match(process.stdout.readline())
        assert ready is not None
        yield ready[1]
    finally:
        process.terminate()
        process.wait(30)


async def through_gateway(
    urls: list[str], calls: list[Call], requests: list[Sent]
) -> tuple[list[Got], list[bytes | None]]:
    """The answers, and for each what its engine sent."""
    async with contextlib.AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(AnswerRelay(url, NAME).running()) for url in urls]
        url = stack.enter_context(gateway([relay.url for relay in relays]))
        got = await send_all(url, calls, requests)
    sent: dict[str, bytes] = {}
    for relay in relays:
        sent |= {name: body_of(bytes(answer)) for name, answer in relay.answers.items()}
    return got, [sent.get(str(number)) for number in range(len(calls))]


def is_equal(call: Call, direct: Got, got: Got) -> bool:
    """Whether two answers are alike."""
    if direct.status != got.status:
        return False
    if is_geminis(call):
        return bool(text_of(direct.body) == text_of(got.body))
    return bool(shape_of(direct.body) == shape_of(got.body))


def compare(
    calls: list[Call], direct: list[Got], got: list[Got], sent: list[bytes | None]
) -> Counter[str]:
    """Count what is alike, of one client's calls."""
    row: Counter[str] = Counter(requests=len(calls))
    engines: dict[tuple[str, str], set[str]] = defaultdict(set)
    for number, call in enumerate(calls):
        mine, other = got[number], direct[number]
        row["status 200"] += other.status == 200
        row["equal"] += is_equal(call, other, mine)
        row["same bytes"] += mine.body == sent[number]
        engines[stream_of(call, str(number))].add(mine.receipt.partition(";")[0])
        for name, answer in (("direct", other), ("gateway", mine)):
            prompt_tokens, cached_tokens = tokens_of(answer.body)
            row[f"{name} prompt"] += prompt_tokens
            row[f"{name} cached"] += cached_tokens
        if not is_equal(call, other, mine):
            print(f"call {number} differs: {other.status} {mine.status}", flush=True)
            print(first_difference(shape_of(other.body), shape_of(mine.body)), flush=True)
    row["streams"] = len(engines)
    row["kept together"] = sum(len(names) == 1 for names in engines.values())
    row["engines used"] = len(set().union(*engines.values()))
    return row


def replay(
    model: Path, clients: dict[str, list[Call]], forms: list[str], output: Path
) -> Iterator[dict[str, Any]]:
    """One row a client and form."""
    log = output / "gateway_recordings.decisions.jsonl"
    log.unlink(missing_ok=True)
    options = replay_options(model, TEMPLATE, clients, log, KV_TOKENS)
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(
                EngineServer(
                    policy,
                    options,
                    output / f"{policy}.server.log",
                    start_timeout_s=START_TIMEOUT_S,
                )
            )
            for policy in ("holdfast", "vllm-default")
        ]
        urls = [engine.url for engine in engines]
        for (client, calls), form in itertools.product(clients.items(), forms):
            if form == "scripted" and is_geminis(calls[0]):
                continue
            for engine in engines:
                engine.reset_prefix_cache()
            scripts = scripts_of(model, calls, has_thoughts=False)
            requests = [request_of(c, form, s) for c, s in zip(calls, scripts, strict=True)]
            chats = [as_chat(r) if r.path.startswith(GEMINI) else r for r in requests]
            direct = asyncio.run(send_all(urls[0], calls, chats))
            engines[0].reset_prefix_cache()
            got, sent = asyncio.run(through_gateway(urls, calls, requests))
            counted = compare(calls, direct, got, sent)
            print(client, form, dict(counted), flush=True)
            yield {"client": client, "form": form, **counted}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    counts = ["requests", "status 200", "equal", "same bytes", "streams", "kept together"]
    names = ["client", "form", *counts, "engines used", "cached, one engine", "cached, gateway"]
    lines = [names, ["---", "---", *["---:"] * (len(names) - 2)]]
    for row in rows:
        cells = [row["client"], row["form"]]
        is_made = row["client"].startswith("Gemini")
        for name in (*counts, "engines used"):
            cells.append("" if is_made and name == "same bytes" else str(row[name]))
        for name in ("direct", "gateway"):
            prompt_tokens = row[f"{name} prompt"]
            share = row[f"{name} cached"] / prompt_tokens if prompt_tokens else None
            cells.append("" if share is None else f"{share:.1%}")
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--client", action="append", help="beginning of a client's name")
    parser.add_argument("--runs", type=int, help="of each client, the shortest")
    parser.add_argument("--form", action="append", choices=FORMS)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.recordings is None:
        print("left out: needs --recordings, a directory of clients' recorded requests")
        return
    paths = sorted(options.recordings.glob("*.jsonl.xz"))
    clients: dict[str, list[Call]] = defaultdict(list)
    for call in itertools.chain.from_iterable(calls_of(p, others=GEMINI) for p in paths):
        clients[client_of(call)].append(call)
    named = tuple(options.client or [""])
    chosen = {
        name: shortest_runs(calls, options.runs)
        for name, calls in sorted(clients.items())
        if name.startswith(named)
    }
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    manifest = run_manifest(
        arguments={"kv_tokens": KV_TOKENS, "short_tokens": SHORT_TOKENS, "runs": options.runs},
        runs=(),
        digests=digests,
    )
    stem = options.output / "gateway_recordings"
    with tempfile.TemporaryDirectory() as directory:
        model = build_tiny_model(Path(directory, "model"))
        for row in replay(model, chosen, options.form or list(FORMS), options.output):
            rows.append(row)
            document = {"manifest": manifest, "rows": rows}
            stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
            stem.with_suffix(".md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
