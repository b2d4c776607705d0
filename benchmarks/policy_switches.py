"""Each policy on against off: on a workload it is for, and on one where it must cost nothing.

python benchmarks/policy_switches.py [--seeds N] [--output DIR]

What other benchmarks have measured is read from their committed tables in `results`; a row names
its file. Quotas, tool rules and the processor time of request policies are measured here, with the
real policies and filters, in seconds. Rows without a seed of their own have medians over seeds.

Quotas: one engine that computes a prompt in a fifth of a second, in order of arrival, on a virtual
clock. Four tenants send a request every two seconds each; a fifth, which floods, ten a second. A
refused request is not sent again. Routing: generated sessions on one engine, simulated. Tool rules:
streamed answers of a coding agent, of which three in ten make a call that examples/tool-rules.toml
forbids, or none does.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway_overhead import POLICIES, bodies, unused_rules
from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.core.results import RunResult
from holdfast.gateway.answer_filter_chat import ChatStream
from holdfast.gateway.call_judge import CallJudge
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.policies.registry import REQUEST_POLICIES
from holdfast.policies.requests import (
    AnswerEnded,
    Request,
    RequestClosed,
    RequestPassed,
    RequestPolicy,
    RequestSent,
)
from holdfast.report.document import read_document
from holdfast.report.manifest import run_manifest

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("policy", "workload", "it is", "measure", "off", "on", "table")
CHAT = "/v1/chat/completions"
NUM_ANSWERS = 200
NUM_REPEATS = 30
FLOOD_S = 120.0
SERVED_S = 0.2
QUOTA = {"requests_per_min": 60, "max_concurrent": 20}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; cells as in `COLUMNS`."""

    policy: str
    workload: str
    fit: str
    measure: str
    off: str
    on: str
    table: str


@dataclass(frozen=True, slots=True)
class Known:
    """A comparison that a committed table has.

    Attributes:
        off: First cells of its row with the policy off.
        on: Likewise with the policy on.
        section: Begin of the heading above; "" for a file of one table.
    """

    policy: str
    workload: str
    is_for: bool
    measure: str
    file: str
    off: tuple[str, ...]
    on: tuple[str, ...]
    section: str = ""


OURS = "holdfast"
STOCK = "vllm-default"
TWICE = "twice the cache"
ABLATED = "ablations-weka-claude-code", "**10 sessions at once"
READS = "waited for reads, s"
KNOWN = (
    *(
        Known(policy, workload, is_for, measure, file, (STOCK,), (name,), section)
        for policy, name in (("prefix caching", "return-rate"), ("batch shaping", "working-set"))
        for workload, is_for, measure, (file, section) in (
            ("recorded agents, twice the cache", True, "output (tok/s)", ABLATED),
        )
    ),
    Known(
        *("prefix caching", "agents in a fixed order", True, "TTFT mean (ms)", "workflows"),
        *(("none", STOCK), ("none", OURS), "**kvflow-single"),
    ),
    *(
        Known("both of them", workload, is_for, measure, file, (STOCK,), (OURS,), section)
        for workload, is_for, measure, (file, section) in (
            ("recorded agents, twice the cache", True, "output (tok/s)", ABLATED),
            ("one-shots", False, "LLM time a session (s)", ("adversarial", "**one-shots")),
        )
    ),
    *(
        Known(
            *("routing", workload, is_for, "output, tokens/s", "fleet"),
            *(("round-robin", STOCK), (OURS, STOCK), section),
        )
        for workload, is_for, section in (
            ("four engines, 24 sessions each", True, "**pods-24"),
            ("four engines, few sessions", True, "**four"),
        )
    ),
    *(
        Known(
            *("prefetch between steps", workload, is_for, "TTFT mean (ms)", "workflows"),
            *((TWICE, "holdfast, no prefetch"), (TWICE, OURS), section),
        )
        for workload, is_for, section in (
            ("agents in a fixed order", True, "**kvflow-single"),
            ("agents in random order", False, "**random"),
        )
    ),
    *(
        Known(
            *("warm-ups", workload, False, "TTFT mean (ms)", "workflows"),
            *(("none", OURS), ("none", "holdfast, warm-ups"), section),
        )
        for workload, section in (
            ("agents in a fixed order", "**kvflow-single"),
            ("agents in random order", "**random"),
        )
    ),
    *(
        Known(policy, workload, is_for, READS, "mcp_proxy", (played, "*", off), (played, "*", on))
        for policy, off, on, for_name, for_play in (
            (
                *("results from memory", "no policies", "memory"),
                *("recorded git calls, distant server", "recorded, distant"),
            ),
            (
                *("speculative calls", "memory", "memory and early calls"),
                *("scripted review, distant server", "scripted review, distant"),
            ),
        )
        for workload, is_for, played in (
            (for_name, True, for_play),
            ("a write between all reads", False, "writes between reads"),
        )
    ),
    *(
        Known(
            *("fairness", workload, is_for, measure, "fairness"),
            *((tenants, "off"), (tenants, "tenants")),
        )
        for workload, is_for, measure, tenants in (
            ("a greedy tenant and a modest one", True, "TTFT p99 of the modest, s", "two, equal"),
            ("one tenant alone", False, "TTFT mean of all, s", "alone"),
        )
    ),
)
CANONICAL = (
    ("Claude Code, templates that merge", True, ("Claude Code 2.1.197", "system first")),
    ("Codex, a client that keeps its prefix", False, ("Codex CLI 0.171.0", "in place")),
)


def known_rows() -> Iterator[Row]:
    """Rows from committed tables."""
    for each in KNOWN:
        off, on = (
            cell_of(each.file, each.section, cells, each.measure) for cells in (each.off, each.on)
        )
        fit = "for" if each.is_for else "not for"
        yield Row(each.policy, each.workload, fit, each.measure, off, on, each.file)
    for workload, is_for, cells in CANONICAL:
        off, on = (
            cell_of("canonical_prompts", "", cells, column) for column in ("kept: none", "all")
        )
        fit = "for" if is_for else "not for"
        yield Row(
            *("canonical prompts", workload, fit, "prompt kept", off, on, "canonical_prompts")
        )


def cell_of(file: str, section: str, cells: Sequence[str], column: str) -> str:
    """A cell of a table; the median of several rows, where a first cell is `*`."""
    lines = (RESULTS / f"{file}.md").read_text().splitlines()
    if section:
        lines = lines[next(i for i, line in enumerate(lines) if line.startswith(section)) + 1 :]
    table = [line for line in lines if line.startswith("|")]
    heading, *rows = ([each.strip() for each in line.strip("| ").split(" | ")] for line in table)
    index = heading.index(column)
    found = [
        row[index]
        for row in rows[1:]
        if all(want in ("*", have) for want, have in zip(cells, row, strict=False))
    ]
    if "*" in cells:
        return f"{statistics.median(float(each) for each in found):.1f}"
    return found[0]


# Measured here.


def request_of(tenant: str, now_s: float, body: RequestBody) -> Request:
    return Request(CHAT, body, Identity(f"s-{tenant}", tenant=tenant), now_s)


def routing_rows(num_seeds: int) -> Iterator[Row]:
    """One engine, where all routers must be alike."""
    arguments = ("--policies", STOCK, "--engines", "1", "--router", "round-robin,kv-routing")
    load = ("--concurrency", "6", "--sessions", "12", "--kv-tokens", "400000", "--jobs", "1")
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [sys.executable, "-m", "holdfast", "simulate", *arguments, *load]
        command += ["--seeds", str(num_seeds), "--json", str(result)]
        subprocess.run(command, check=True, capture_output=True)
        runs = read_document(result).runs
    off, on = (
        spread([llm_time_s(run) for run in runs if router in str(run.fleet)])
        for router in ("round-robin", "kv-routing")
    )
    yield Row("routing", "one engine", "not for", "LLM time a session, s", off, on, "")


def llm_time_s(run: RunResult) -> float:
    assert run.session_llm_time_s is not None
    return run.session_llm_time_s.mean


def quota_rows(num_seeds: int) -> Iterator[Row]:
    for workload, fit, rate_per_s in (
        ("four tenants, and one that floods", "for", 10.0),
        ("five modest tenants", "not for", 0.5),
    ):
        found = [
            [flood(seed, rate_per_s, policy) for seed in range(num_seeds)]
            for policy in (None, QUOTA)
        ]
        off, on = (spread([p99_s for p99_s, _ in runs]) for runs in found)
        refused = spread([float(num_refused) for _, num_refused in found[1]], digits=0)
        measure = "TTFT p99 of the modest, s"
        yield Row("tenant-quotas", workload, fit, measure, off, on, "")
        yield Row("tenant-quotas", workload, fit, "refused requests", "0", refused, "")


def flood(seed: int, rate_per_s: float, settings: dict[str, int] | None) -> tuple[float, int]:
    """TTFT p99 of four modest tenants (s), and refused requests (count)."""
    chance = random.Random(seed)
    policy = None if settings is None else REQUEST_POLICIES.build("tenant-quotas", {**settings})
    body = RequestBody.parse(b'{"messages": []}')
    assert body is not None
    rates = {**{f"t{n}": 0.5 for n in range(4)}, "greedy": rate_per_s}
    arrivals = sorted(
        (at_s, tenant) for tenant, rate in rates.items() for at_s in poisson(chance, rate)
    )
    free_s, num_refused = 0.0, 0
    open_: list[tuple[float, Request]] = []
    waited_s: list[float] = []
    for now_s, tenant in arrivals:
        request = request_of(tenant, now_s, body)
        while policy is not None and open_ and open_[0][0] <= now_s:
            ended_s, ended = open_.pop(0)
            policy.observe(AnswerEnded(ended, ended_s, 1, 1))
            policy.observe(RequestClosed(ended, ended_s))
        if policy is not None and policy.refuse(request) is not None:
            num_refused += 1
            continue
        free_s = max(free_s, now_s) + SERVED_S
        open_.append((free_s, request))
        if policy is not None:
            policy.observe(RequestPassed(request))
            policy.observe(RequestSent(request, now_s, 4, 4))
        if tenant != "greedy":
            waited_s.append(free_s - now_s)
    return sorted(waited_s)[int(0.99 * (len(waited_s) - 1))], num_refused


def poisson(chance: random.Random, rate_per_s: float) -> Iterator[float]:
    at_s = chance.expovariate(rate_per_s)
    while at_s < FLOOD_S:
        yield at_s
        at_s += chance.expovariate(rate_per_s)


def rule_rows(num_seeds: int) -> Iterator[Row]:
    for workload, fit, share in (
        ("answers with forbidden calls", "for", 0.3),
        ("answers without", "not for", 0.0),
    ):
        off, on, changed, cost = zip(
            *(judged(seed, share) for seed in range(num_seeds)), strict=True
        )
        for measure, without, with_ in (
            ("forbidden calls that reach the client", spread(off, 0), spread(on, 0)),
            ("other answers that change", "0", spread(changed, 0)),
            ("processor time an answer of 100 words and a call, ms", "0", spread(cost)),
        ):
            yield Row("tool-rules", workload, fit, measure, without, with_, "")


def judged(seed: int, share: float) -> tuple[float, float, float, float]:
    """Forbidden calls off and on, other answers that change (counts), and time an answer (ms)."""
    chance = random.Random(seed)
    metrics = GatewayMetrics()
    rules = tomllib.loads(unused_rules())["tool-rules"]
    policies = RequestPolicies([REQUEST_POLICIES.build("tool-rules", rules)], metrics)
    body = RequestBody.parse(b'{"messages": [{"role": "user", "content": "go on"}]}')
    assert body is not None
    num_off = num_on = num_changed = 0
    took_s: list[float] = []
    for number in range(NUM_ANSWERS):
        is_forbidden = chance.random() < share
        command = "git push --force" if is_forbidden else f"ls src/{chance.randrange(10**6)}"
        events = list(answer(command))
        judge = CallJudge(policies, request_of(f"t{number % 4}", 0.0, body), metrics.unjudged)
        stream = ChatStream(judge)
        began_s = time.process_time()
        passed = b"".join(map(stream.feed, events)) + stream.end()
        took_s.append(time.process_time() - began_s)
        num_off += is_forbidden
        num_on += is_forbidden and b"force" in passed
        num_changed += not is_forbidden and passed != b"".join(events)
    return num_off, num_on, num_changed, 1e3 * statistics.median(took_s)


def answer(command: str) -> Iterator[bytes]:
    """Events of an answer with 100 of text and a call in pieces."""
    deltas: list[dict[str, object]] = [{"content": f" word{n}"} for n in range(100)]
    text = json.dumps({"command": command, "description": "a step of the work " * 4})
    deltas.append({"tool_calls": [part_of("", name="Bash")]})
    size = -(-len(text) // 50)
    deltas += [{"tool_calls": [part_of(text[i : i + size])]} for i in range(0, len(text), size)]
    deltas.append({})
    for number, delta in enumerate(deltas):
        reason = "tool_calls" if number + 1 == len(deltas) else None
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def part_of(arguments: str, **named: str) -> dict[str, object]:
    return {"index": 0, "function": {**named, "arguments": arguments}}


def cost_rows(num_seeds: int) -> Iterator[Row]:
    """Processor time of each request policy on prompts of 220 KB that it need not change."""
    tables = tomllib.loads(POLICIES.format(rules=unused_rules()))
    prompts = bodies()
    for name in REQUEST_POLICIES.names():
        policy = REQUEST_POLICIES.build(name, tables.get(name, {}))
        costs = [cost_ms(policy, prompts[seed], f"t{seed + 1}") for seed in range(num_seeds)]
        measure = "processor time a request, ms"
        workload = "prompts of 220 KB, as they are"
        yield Row(name, workload, "not for", measure, "0", spread(costs), "")


def cost_ms(policy: RequestPolicy, text: bytes, tenant: str) -> float:
    """The least time of several (ms): what else the machine does only adds to it."""
    least_s = float("inf")
    for now_s in range(NUM_REPEATS):
        body = RequestBody.parse(text)
        assert body is not None
        request = request_of(tenant, float(now_s), body)
        began_s = time.process_time()
        assert policy.refuse(request) is None
        assert policy.rewrite(request) is None
        for event in (
            RequestPassed(request),
            RequestSent(request, now_s, len(text), 0),
            AnswerEnded(request, now_s, 1, 1),
            RequestClosed(request, now_s),
        ):
            policy.observe(event)
        least_s = min(least_s, time.process_time() - began_s)
    return 1e3 * least_s


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, lowest and highest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    if low == high:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    rows = [
        *(*known_rows(), *routing_rows(options.seeds), *quota_rows(options.seeds)),
        *(*rule_rows(options.seeds), *cost_rows(options.seeds)),
    ]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|---|---:|---:|---|"]
    for row in rows:
        cells = [*asdict(row).values()]
        cells[-1] = f"[{row.table}]({row.table}.md)" if row.table else "here"
        lines.append("| " + " | ".join(cells) + " |")
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "policy_switches"
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    manifest = run_manifest(arguments={"seeds": options.seeds}, runs=[])
    document = {"manifest": manifest, "rows": [asdict(row) for row in rows]}
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
