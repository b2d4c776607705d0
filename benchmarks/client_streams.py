"""Compares the streams found in recorded requests of clients with the true ones.

python benchmarks/client_streams.py --recordings DIR [--client NAME …] [--template NAME …]
                                    [--output DIR]

Sends the recorded requests, headers included, to `holdfast serve` on the CPU engine, in their
recorded order and overlap; the engine answers what was recorded. DIR holds one `NAME.jsonl.xz` a
client: label, script, t, t_end, path, headers, body, calls, answer. Writes `client_streams.json`
and `client_streams.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import lzma
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig
from holdfast.report.manifest import run_manifest

KV_TOKENS = 1_500_000  # all clients' prompts fit: nothing is evicted
LEFT_OUT = {"host", "content-length", "authorization", "x-api-key", "accept-encoding"}
ENDPOINTS = ("/v1/messages", "/v1/responses", "/v1/chat/completions")

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
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.recordings is None:
        print("left out: needs --recordings, a directory of clients' recorded requests")
        return
    files = sorted(options.recordings.glob("*.jsonl.xz"))
    paths = {path.name.removesuffix(".jsonl.xz"): path for path in files}
    paths = {name: paths[name] for name in options.client or paths}
    clients = {name: calls for name, path in paths.items() if (calls := _calls_of(path))}
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        model = build_tiny_model(Path(directory, "model"))
        for template in options.template or TEMPLATES:
            rows += _replay(model, template, clients, options.output)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()}
    _write(options.output, rows, digests)


def _write(output: Path, rows: list[dict[str, Any]], digests: dict[str, str]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    manifest = run_manifest(arguments={"kv_tokens": KV_TOKENS}, runs=(), digests=digests)
    document = {"manifest": manifest, "rows": rows}
    (output / "client_streams.json").write_text(json.dumps(document, indent=1) + "\n")
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (output / "client_streams.md").write_text(table)
    print(table)


def _calls_of(path: Path) -> list[dict[str, Any]]:
    """Recorded calls that vLLM has an endpoint for, in order."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        calls = [json.loads(line) for line in file]
    return sorted((c for c in calls if c["path"] in ENDPOINTS), key=lambda call: call["t"])


def _replay(
    model: Path, template: str, clients: dict[str, list[dict[str, Any]]], output: Path
) -> list[dict[str, Any]]:
    """All clients' requests, one client after the other, on one engine."""
    chat_template = model / "replayed.jinja"
    system, thoughts = TEMPLATES[template]
    text = _TEMPLATE.replace("SYSTEM", system).replace("THOUGHTS", thoughts)
    chat_template.write_text(text, encoding="utf-8")
    log = output / "client_streams.decisions.jsonl"
    log.unlink(missing_ok=True)
    models = {call["body"]["model"] for calls in clients.values() for call in calls}
    options = EngineOptions(
        model=model,
        kv_tokens=KV_TOKENS,
        max_model_len=131_072,
        config=HoldfastConfig(decision_log=str(log), strict=True),
        extra_arguments=(
            *("--served-model-name", *sorted(models)),
            *("--chat-template", str(chat_template)),
            *("--chat-template-content-format", "string"),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
        ),
    )
    answered = {}
    with EngineServer("holdfast", options, output / "client_streams.server.log") as server:
        for client, calls in clients.items():
            scripts = _scripts(model, calls, has_thoughts=bool(thoughts))
            answered[client] = asyncio.run(_send_all(server.url, client, calls, scripts))
            print(f"{template}, {client}: {answered[client]} of {len(calls)} answered", flush=True)
    sessions = _sessions_of(log)
    return [
        {"template": template, "client": client, "calls": len(calls), "answered": answered[client]}
        | _compare(client, clients, sessions)
        for client, calls in clients.items()
    ]


def _scripts(
    model: Path, calls: Iterable[dict[str, Any]], *, has_thoughts: bool
) -> list[list[int]]:
    """Token ids of the recorded answers, as the template would show them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    scripts = []
    for call in calls:
        text = "<think>\nLet me think.\n</think>\n\n" if has_thoughts else ""
        text += call["answer"] or ""
        for name, arguments in call["calls"] or ():
            function = json.dumps({"name": name, "arguments": arguments})
            text += f"\n<tool_call>\n{function}\n</tool_call>"
        encoding = tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
        scripts.append(list(encoding.ids))
    return scripts


async def _send_all(
    url: str, client: str, calls: list[dict[str, Any]], scripts: list[list[int]]
) -> int:
    """Send each call when all have ended that had ended when it was recorded."""
    ended = [asyncio.Event() for _ in calls]
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def send(number: int) -> bool:
            call = calls[number]
            for other, event in zip(calls, ended, strict=True):
                if other["t_end"] <= call["t"]:
                    await event.wait()
            try:
                return await _send(http, url, call, scripts[number], f"{client}.{number}")
            finally:
                ended[number].set()

        return sum(await asyncio.gather(*map(send, range(len(calls)))))


async def _send(
    http: aiohttp.ClientSession, url: str, call: dict[str, Any], script: list[int], name: str
) -> bool:
    body = dict(call["body"])
    length = {
        "/v1/responses": "max_output_tokens",
        "/v1/chat/completions": "max_completion_tokens",
        "/v1/messages": "max_tokens",
    }[call["path"]]
    body.pop("max_tokens", None)
    body |= {length: len(script), "vllm_xargs": {"scripted_output": script}}
    # Grammars would forbid the script; what Codex wants included vLLM does not know.
    for field in ("response_format", "text", "output_config", "tool_choice", "include"):
        body.pop(field, None)
    headers = {key: value for key, value in call["headers"] if key.lower() not in LEFT_OUT}
    headers["X-Request-Id"] = f"call:{name}:"
    if call["path"] == "/v1/responses":  # which does not read the header
        body["request_id"] = f"resp_call:{name}:"
    async with http.post(url + call["path"], json=body, headers=headers) as answer:
        text = await answer.text()
    if answer.status != 200:
        print(f"call {name}: {answer.status} {text[:200]}", flush=True)
    return answer.status == 200


def _sessions_of(log: Path) -> dict[str, int]:
    """The session of each call by the call's name, from the decision log."""
    events = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return {
        event["request"].split(":")[1]: event["session"]
        for event in events
        if event["event"] == "turn_arrived" and ":" in event["request"]
    }


def _stream_of(call: dict[str, Any], number: int) -> Hashable:
    """The true stream: an agent of one run; each call for a title or a commit is one of its own."""
    script = call["script"]
    is_aiders_side_call = script == "aider" and len(call["body"]["messages"]) <= 2
    if script == "side" or is_aiders_side_call:
        return call["label"], number
    return call["label"], "main" if script == "resume" else script


def _compare(
    client: str, clients: dict[str, list[dict[str, Any]]], sessions: dict[str, int]
) -> dict[str, Any]:
    """Streams of one client; a stream that shares its session with any other is merged."""
    true: dict[Hashable, set[int]] = defaultdict(set)
    streams: dict[int, set[Hashable]] = defaultdict(set)
    for name, calls in clients.items():
        for number, call in enumerate(calls):
            session = sessions.get(f"{name}.{number}")
            if session is None:
                continue
            stream = (name, _stream_of(call, number))
            streams[session].add(stream)
            if name == client:
                true[stream].add(session)
    found = set().union(*true.values())
    return {
        "true": len(true),
        "found": len(found),
        "merged": sum(len(streams[session]) - 1 for session in found),
        "split": sum(len(sessions) - 1 for sessions in true.values()),
    }


if __name__ == "__main__":
    main()
