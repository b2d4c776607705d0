"""Measures what judging tool calls costs the gateway, on against off.

python benchmarks/tool_rules_cost.py [--seconds N] [--rounds N] [--output DIR]

Prompts and loads are those of `gateway_overhead.py`: 220 KB, 200 at once, and 100 a second.
The engine answers at once with 100 chunks of text and a call of 50 chunks. Two gateways before it,
one with the rules of examples/tool-rules.toml and budgets that are never used up, take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gateway_overhead
from gateway_overhead import HEAD, OPEN_RATE_PER_S, Sample, gateway, measure, running, unused_rules
from holdfast.report.manifest import run_manifest

LOADS = (200, 0)
NAMES = ("off", "on")
NUM_TEXTS = 100
NUM_PARTS = 50
FIELDS = ("rate_per_s", "ttft_p50_ms", "ttft_p99_ms", "cpu_ms", "memory_mib")


def answer() -> bytes:
    """A stream of text and of one call, as vLLM writes it."""
    function = {"name": "Read", "arguments": '{"path": "'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    deltas: list[dict[str, object]] = [{"content": f" word{n}"} for n in range(NUM_TEXTS)]
    deltas.append(
        {"tool_calls": [call | {"function": {"name": "Read", "arguments": '{"path": "'}}]}
    )
    part = {"index": 0, "function": {"arguments": "src/"}}
    deltas += [{"tool_calls": [part]}] * NUM_PARTS
    deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]})
    text = HEAD
    for number, delta in enumerate(deltas):
        finish = "tool_calls" if number + 1 == len(deltas) else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        event = b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n"
        text += b"%x\r\n%s\r\n" % (len(event), event)
    return text + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@contextmanager
def engines() -> Iterator[list[int]]:
    """The ports of two engines: one that is missed for a moment must not stop the run."""
    with ExitStack() as stack:
        ports = []
        for _ in range(2):
            process = stack.enter_context(running(sys.executable, __file__, "--engine"))
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        yield ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        gateway_overhead.ANSWER = answer()
        gateway_overhead.engine_main()
        return
    samples: dict[int, dict[str, list[Sample]]] = {load: {n: [] for n in NAMES} for load in LOADS}
    with tempfile.TemporaryDirectory() as directory, engines() as ports:
        rules = Path(directory) / "rules.toml"
        rules.write_text(unused_rules())
        with gateway(ports) as off, gateway(ports, "--policies", str(rules)) as on:
            targets = dict(zip(NAMES, (off, on), strict=True))
            for number in range(options.rounds):
                for load in LOADS:
                    for name in NAMES if number % 2 else NAMES[::-1]:
                        sample = measure(*targets[name], load, options.seconds)
                        samples[load][name].append(sample)
                        print(number, load, name, sample, flush=True)
    write(samples, options)


def write(samples: dict[int, dict[str, list[Sample]]], options: argparse.Namespace) -> None:
    """Write medians over rounds, their ratios, and every sample."""
    lines = [
        "| load | rules | answers/s | TTFT p50, ms | TTFT p99, ms | CPU a request, ms |"
        " memory, MiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for load, by_name in samples.items():
        shown = f"{load} at once" if load else f"{OPEN_RATE_PER_S:g} a second"
        middles = {
            name: [statistics.median(getattr(each, field) for each in found) for field in FIELDS]
            for name, found in by_name.items()
        }
        ratios = [on / off for off, on in zip(middles["off"], middles["on"], strict=True)]
        for name, row in (*middles.items(), ("on ÷ off", ratios)):
            lines.append("| " + " | ".join([shown, name, *(f"{each:.2f}" for each in row)]) + " |")
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "tool_rules_cost"
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    arguments = {"seconds": options.seconds, "rounds": options.rounds, "cores": os.cpu_count()}
    content = {
        str(load): {
            name: [{field: getattr(each, field) for field in Sample.__slots__} for each in found]
            for name, found in by_name.items()
        }
        for load, by_name in samples.items()
    }
    document = {"manifest": run_manifest(arguments=arguments, runs=[]), "samples": content}
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
