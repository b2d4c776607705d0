"""What the middleware adds to a request: CPU time of its reading and of the new body's text.

python benchmarks/identity_cost.py [--output DIR]

Times `ClientSessions` alone, before an application that reads the body, on chats of several sizes
with a coding agent's headers; beside it what `json.loads` of the body takes, which vLLM does
anyway. CPU time of the process, the least of several rounds. Writes `identity_cost.json` and
`identity_cost.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.report.manifest import run_manifest
from holdfast.vllm.client_sessions import ClientSessions

SIZES_BYTES = (2_000, 20_000, 220_000, 1_000_000)
NUM_ROUNDS, CALLS_PER_ROUND = 15, 20
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks. " * 40}}
HEADERS = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"codex_exec/0.171.0"),
    (b"thread-id", b"01a22465-099c-73f1-8d28-50dc1a013e62"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    rows = [_row(size_bytes) for size_bytes in SIZES_BYTES]
    arguments = {"rounds": NUM_ROUNDS, "calls_per_round": CALLS_PER_ROUND}
    manifest = run_manifest(arguments=arguments, runs=(), digests={})
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"manifest": manifest, "rows": rows}
    (options.output / "identity_cost.json").write_text(json.dumps(document, indent=1) + "\n")
    names = list(rows[0])
    lines = [names, ["---:"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (options.output / "identity_cost.md").write_text(table)
    print(table)


def _row(size_bytes: int) -> dict[str, Any]:
    message = {"role": "user", "content": 'Line of a file: "x" \u00e9\n' * 20}
    body = {"model": "m", "tools": [TOOL] * 5, "messages": [message]}
    text = json.dumps(body).encode()
    body["messages"] = [message] * max(1, (size_bytes - len(text)) // len(json.dumps(message)))
    text = json.dumps(body).encode()
    return {
        "body (KB)": round(len(text) / 1000),
        "middleware (us)": round(1e6 * _least_s(lambda: asyncio.run(_handle(text, HEADERS)))),
        "without it (us)": round(1e6 * _least_s(lambda: asyncio.run(_handle(text, None)))),
        "json.loads (us)": round(1e6 * _least_s(lambda: _load(text))),
    }


def _load(text: bytes) -> None:
    for _ in range(CALLS_PER_ROUND):
        json.loads(text)


def _least_s(round_of_calls: Callable[[], None]) -> float:
    """Least CPU time of a call (s)."""
    times_s = []
    for _ in range(NUM_ROUNDS):
        began_s = time.process_time()
        round_of_calls()
        times_s.append((time.process_time() - began_s) / CALLS_PER_ROUND)
    return min(times_s)


async def _handle(text: bytes, headers: list[tuple[bytes, bytes]] | None) -> None:
    """A round of calls; without headers those of the application alone."""
    app: Any = _application if headers is None else ClientSessions(_application)
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": text, "more_body": False}

    for _ in range(CALLS_PER_ROUND):
        await app({**scope, "headers": headers or []}, receive, None)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await receive()


if __name__ == "__main__":
    main()
