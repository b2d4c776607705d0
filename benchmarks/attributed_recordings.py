"""Attributes every miss of recorded sessions of real clients.

python benchmarks/attributed_recordings.py --recordings DIR [--sessions 20] [--kv-tokens 98304]
                                           [--output DIR]

Sends recorded requests to `holdfast serve` on the CPU engine as `client_streams.py` does, on a KV
cache that does not hold all of them, and reads from the decision log why each missed. A session is
one run of a client, its sub-agents included: the shortest of each client, then the shortest of all.
Writes `attributed_recordings.json` and `attributed_recordings.md`: prompt tokens by client, cached
or missing for a reason. `unknown` are tokens without a reason.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from client_streams import replay_options, send_all
from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineServer
from holdfast.core.miss import MISS_REASONS
from holdfast.report.manifest import run_manifest
from recorded_calls import calls_of, client_of, scripts_of

__all__ = ["main"]

TEMPLATE = "in place"
Calls = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--kv-tokens", type=int, default=98_304)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.recordings is None:
        print("left out: needs --recordings, a directory of clients' recorded requests")
        return
    paths = sorted(options.recordings.glob("*.jsonl.xz"))
    chosen = choose(list(itertools.chain(*map(calls_of, paths))), options.sessions)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        sent, missed = replay(
            build_tiny_model(Path(directory, "model")), chosen, options.kv_tokens, options.output
        )
    rows = table(sent, missed)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    arguments = {"sessions": options.sessions, "kv_tokens": options.kv_tokens}
    manifest = run_manifest(arguments=arguments, runs=(), digests=digests)
    document = {"schema": "holdfast.attributed_recordings/1", "manifest": manifest, "rows": rows}
    path = options.output / "attributed_recordings.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    text = markdown(rows)
    (options.output / "attributed_recordings.md").write_text(text)
    print(text)


def choose(calls: Calls, num_sessions: int) -> dict[str, Calls]:
    """The calls of so many sessions, by client: the shortest of each, then of all."""
    runs: dict[str, Calls] = defaultdict(list)
    for call in calls:
        runs[call["label"]].append(call)
    by_length = sorted(runs.values(), key=lambda run: sum(len(str(call["body"])) for call in run))
    first = {client_of(run[0]): run for run in reversed(by_length)}.values()
    others = (run for run in by_length if run not in first)
    taken = list(itertools.islice(itertools.chain(first, others), num_sessions))
    chosen: dict[str, Calls] = defaultdict(list)
    for run in taken:
        chosen[client_of(run[0])] += run
    return {client: sorted(run, key=lambda call: call["t"]) for client, run in chosen.items()}


def replay(
    model: Path, clients: dict[str, Calls], kv_tokens: int, output: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Send all calls; returns those that were answered, and why each missed, by name."""
    log = output / "attributed_recordings.decisions.jsonl"
    log.unlink(missing_ok=True)
    options = replay_options(model, TEMPLATE, clients, log, kv_tokens)
    sent: dict[str, dict[str, Any]] = {}
    num_answered = 0
    with EngineServer("holdfast", options, output / "attributed_recordings.server.log") as server:
        for number, (client, calls) in enumerate(sorted(clients.items())):
            scripts = scripts_of(model, calls, has_thoughts=False)
            sent |= {f"{number}.{index}": call for index, call in enumerate(calls)}
            num_answered += asyncio.run(send_all(server.url, str(number), calls, scripts))
            print(f"{client}: {num_answered} of {len(sent)} calls answered", flush=True)
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    missed = {
        line["request"].split(":")[1]: line
        for line in lines
        if line["event"] == "missed" and ":" in line["request"]
    }
    return {name: call for name, call in sent.items() if name in missed}, missed


def table(
    sent: dict[str, dict[str, Any]], missed: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Prompt tokens by client: cached, missing for a reason, and without a reason."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    labels: dict[str, set[str]] = defaultdict(set)
    for name, call in sent.items():
        record, row = missed[name], sums[client_of(call)]
        labels[client_of(call)].add(call["label"])
        attributed = record["cached_tokens"] + sum(record["missed"].values())
        row.update(record["missed"])
        row.update(calls=1, prompt=record["prompt_tokens"], cached=record["cached_tokens"])
        row["unknown"] += abs(record["prompt_tokens"] - attributed)
    for row in sums.values():
        assert row.keys() <= {"calls", "prompt", "cached", "unknown", *MISS_REASONS}, row
    total: Counter[str] = Counter()
    for row in sums.values():
        total.update(row)
    num_sessions = {client: len(runs) for client, runs in labels.items()}
    sums["all"], num_sessions["all"] = total, sum(num_sessions.values())
    reasons = [reason for reason in MISS_REASONS if total[reason]]
    return [
        {
            "client": client,
            "sessions": num_sessions[client],
            **{name: sums[client][name] for name in ("calls", "prompt", "cached", *reasons)},
            "unknown": sums[client]["unknown"],
        }
        for client in (*sorted(set(sums) - {"all"}), "all")
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    rule = ["---", *["---:"] * (len(names) - 1)]
    cells = [
        [f"{row[name]:,}" if name != "client" else row[name] for name in names] for row in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (names, rule, *cells))


if __name__ == "__main__":
    main()
