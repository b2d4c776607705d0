"""Compares the streams found in recorded requests of clients with the true ones.

python benchmarks/client_streams.py --recordings DIR [--client NAME …] [--template NAME …]
                                    [--identities sent|stripped …] [--output DIR]

Sends the recorded requests to `holdfast serve` on the CPU engine, in their recorded order and
overlap; the engine answers what was recorded. They are sent once as they are and once without any
field or header that could name a client, a session or an agent. DIR holds files `NAME.jsonl.xz`:
label, script, t, t_end, path, headers, body, calls, answer. Writes `client_streams.json` and
`client_streams.md`:

- streams: agents of one run, and each call for a title or a commit message; right are those whose
  turns are one session, and all of that session; the others are split over several sessions or
  merged with others. Requests that are equal byte for byte may stand for each other: nothing tells
  two runs apart that say the same;
- sub-agents: those that the engine knows as such;
- side calls: those that the engine knows as such, or that are a session of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig
from holdfast.core.client_identity import BODY_FIELDS
from holdfast.report.manifest import run_manifest
from recorded_calls import (
    calls_of,
    client_of,
    in_recorded_order,
    is_side_call,
    model_of,
    passed_headers,
    scripted_body,
    scripts_of,
    stream_of,
)

KV_TOKENS = 1_500_000  # all clients' prompts fit: nothing is evicted
IDENTITIES = ("sent", "stripped")

# The templates differ where real ones do: whether a system message may stand later, and whether
# thoughts are shown before the last message of a user.
_TEMPLATE = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}\
{% endfor %}
{%- if messages and messages[0].role == 'system' or tools %}{{ '<|im_start|>system\\n' }}\
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}\
{%- if tools %}{{ '\\n# Tools\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}\
{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}\
{%- if m.role == 'system' and loop.first %}{% else %}\
SYSTEM\
{{- '<|im_start|>' + m.role + '\\n' }}\
THOUGHTS\
{%- if m.content %}{{ m.content }}{% endif %}\
{%- for call in m.tool_calls or [] %}{{ '\\n<tool_call>\\n' }}\
{{ call.function | tojson }}{{ '\\n</tool_call>' }}{% endfor %}\
{{- '<|im_end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
_FIRST_ONLY = (
    "{%- if m.role == 'system' %}{{ raise_exception('System message must be first') }}{% endif %}"
)
_THOUGHTS = (
    "{%- if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\\nLet me think.\\n</think>\\n\\n' }}{% endif %}"
)
TEMPLATES = {
    "in place": ("", ""),
    "reasoning": ("", _THOUGHTS),
    "system first": (_FIRST_ONLY, ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--client", action="append")
    parser.add_argument("--template", action="append", choices=list(TEMPLATES))
    parser.add_argument("--identities", action="append", choices=IDENTITIES)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.recordings is None:
        print("left out: needs --recordings, a directory of clients' recorded requests")
        return
    files = sorted(options.recordings.glob("*.jsonl.xz"))
    paths = {path.name.removesuffix(".jsonl.xz"): path for path in files}
    paths = {name: paths[name] for name in options.client or paths}
    clients = {name: calls for name, path in paths.items() if (calls := calls_of(path))}
    options.output.mkdir(parents=True, exist_ok=True)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        model = build_tiny_model(Path(directory, "model"))
        for template in options.template or TEMPLATES:
            for identities in options.identities or IDENTITIES:
                rows += _replay(model, template, identities, clients, options.output)
                _write(options.output, rows, digests)


def _write(output: Path, rows: list[dict[str, Any]], digests: dict[str, str]) -> None:
    """Write the rows, after those of the document there that were not replayed again."""
    path = output / "client_streams.json"
    old = json.loads(path.read_text()) if path.exists() else {"rows": [], "manifest": {}}
    merged = {_key(row): row for row in (*old["rows"], *rows)}
    rows = [merged[key] for key in sorted(merged)]
    digests = {**(old["manifest"].get("digests") or {}), **digests}
    manifest = run_manifest(arguments={"kv_tokens": KV_TOKENS}, runs=(), digests=digests)
    path.write_text(json.dumps({"manifest": manifest, "rows": rows}, indent=1) + "\n")
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (output / "client_streams.md").write_text(table)
    print(table)


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["template"], row["ids"], row["client"]


def _replay(
    model: Path,
    template: str,
    identities: str,
    clients: dict[str, list[dict[str, Any]]],
    output: Path,
) -> list[dict[str, Any]]:
    """All clients' requests, one client after the other, on one engine."""
    log = output / "client_streams.decisions.jsonl"
    log.unlink(missing_ok=True)
    options = replay_options(model, template, clients, log, KV_TOKENS)
    has_thoughts = bool(TEMPLATES[template][1])
    answered = 0
    sent: dict[str, dict[str, Any]] = {}
    with EngineServer("holdfast", options, output / "client_streams.server.log") as server:
        for client, calls in clients.items():
            scripts = scripts_of(model, calls, has_thoughts=has_thoughts)
            if identities == "stripped":
                calls = [_stripped(call) for call in calls]
            sent |= {f"{client}.{number}": call for number, call in enumerate(calls)}
            answered += asyncio.run(send_all(server.url, client, calls, scripts))
            print(f"{template}, {identities}: {answered} calls answered", flush=True)
    return [
        {"client": client, "template": template, "ids": identities} | row
        for client, row in _compare(sent, _turns_of(log)).items()
    ]


def replay_options(
    model: Path,
    template: str,
    clients: dict[str, list[dict[str, Any]]],
    log: Path,
    kv_tokens: int,
) -> EngineOptions:
    """Options of a server that answers recorded calls as they were answered; writes a template.

    Args:
        model: Directory of the tiny model.
        template: Name of the chat template.
        clients: The calls, by client.
        log: Its decision log.
        kv_tokens: Size of its KV cache.
    """
    chat_template = model / "replayed.jinja"
    system, thoughts = TEMPLATES[template]
    text = _TEMPLATE.replace("SYSTEM", system).replace("THOUGHTS", thoughts)
    chat_template.write_text(text, encoding="utf-8")
    models = {model_of(call) for calls in clients.values() for call in calls}
    return EngineOptions(
        model=model,
        kv_tokens=kv_tokens,
        max_model_len=min(131_072, kv_tokens),
        config=HoldfastConfig(decision_log=str(log), strict=True),
        extra_arguments=(
            *("--served-model-name", *sorted(models)),
            *("--chat-template", str(chat_template)),
            *("--chat-template-content-format", "string"),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
        ),
    )


def _stripped(call: dict[str, Any]) -> dict[str, Any]:
    """A call without any header or field that could name a client, a session or an agent."""
    body = {key: value for key, value in call["body"].items() if key not in {*BODY_FIELDS, "user"}}
    return {**call, "headers": [], "body": body}


async def send_all(
    url: str, client: str, calls: list[dict[str, Any]], scripts: list[list[int]]
) -> int:
    """Send each call in recorded order; returns how many were answered."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def send(number: int) -> bool:
            return await _send(http, url, calls[number], scripts[number], f"{client}.{number}")

        return sum(await in_recorded_order(calls, send))


async def _send(
    http: aiohttp.ClientSession, url: str, call: dict[str, Any], script: list[int], name: str
) -> bool:
    body, headers = scripted_body(call, script), passed_headers(call)
    headers["X-Request-Id"] = f"call:{name}:"
    if call["path"] == "/v1/responses":  # which does not read the header
        body["request_id"] = f"resp_call:{name}:"
    async with http.post(url + call["path"], json=body, headers=headers) as answer:
        text = await answer.text()
    if answer.status != 200:
        print(f"call {name}: {answer.status} {text[:200]}", flush=True)
    return answer.status == 200


def _turns_of(log: Path) -> dict[str, dict[str, Any]]:
    """What the decision log has of each call, by the call's name."""
    turns: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if event["event"] in ("turn_arrived", "turn_ended") and ":" in event["request"]:
            turns[event["request"].split(":")[1]] |= event
    return turns


def _true_streams(
    calls: dict[str, dict[str, Any]], turns: dict[str, dict[str, Any]]
) -> dict[str, tuple[str, str]]:
    """The true stream of each call; equal calls are dealt out as the sessions found have them."""
    equal: dict[str, list[str]] = defaultdict(list)
    for name, call in calls.items():
        if name in turns:
            equal[json.dumps([call["path"], call["headers"], call["body"]])].append(name)
    owners: dict[int, tuple[str, str]] = {}
    found: dict[str, tuple[str, str]] = {}
    for names in equal.values():
        free = [stream_of(calls[name], name) for name in names]
        for name in sorted(names, key=lambda name: owners.get(turns[name]["session"]) not in free):
            session = turns[name]["session"]
            owner = owners.get(session)
            found[name] = owner if owner in free else free[0]
            free.remove(found[name])
            owners.setdefault(session, found[name])
    return found


def _compare(
    calls: dict[str, dict[str, Any]], turns: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Streams, sub-agents and side calls found, by client."""
    true: dict[tuple[str, str], list[str]] = defaultdict(list)
    streams: dict[int, set[Hashable]] = defaultdict(set)
    for name, stream in _true_streams(calls, turns).items():
        true[stream].append(name)
        streams[turns[name]["session"]].add(stream)
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    named: dict[str, set[str]] = defaultdict(set)
    for stream, names in true.items():
        call = calls[names[0]]
        row = rows[client_of(call)]
        row["calls"] += len(names)
        row["streams"] += 1
        sessions = {turns[name]["session"] for name in names}
        is_merged = any(len(streams[session]) > 1 for session in sessions)
        row["right"] += len(sessions) == 1 and not is_merged
        row["split"] += len(sessions) > 1
        row["merged"] += is_merged
        if stream[1].startswith("sub"):
            row["sub-agents"] += 1
            row["known sub-agents"] += any(turns[name].get("is_sub_agent") for name in names)
        if is_side_call(call):
            row["side calls"] += 1
            is_own = len(names) == 1 and not is_merged
            row["known side calls"] += turns[names[0]]["is_side_call"] or is_own
        named[client_of(call)] |= {_naming(turns[name]) for name in names}
    return {
        client: {"identified by": " or ".join(sorted(named[client])), **_shown(row)}
        for client, row in sorted(rows.items())
    }


def _naming(turn: dict[str, Any]) -> str:
    if turn["is_side_call"]:
        return "no tools"
    return "id" if turn["session_id"] else "lineage"


def _shown(row: Counter[str]) -> dict[str, Any]:
    pairs = {
        kind: f"{row[f'known {kind}']} of {row[kind]}" for kind in ("sub-agents", "side calls")
    }
    return {name: row[name] for name in ("calls", "streams", "right", "split", "merged")} | pairs


if __name__ == "__main__":
    main()
