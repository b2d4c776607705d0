"""How much of their prompts real clients repeat, with each rule of `canonical-prompt`.

python benchmarks/canonical_prompts.py --recordings DIR [--output DIR]

Passes recorded requests through the policy as a gateway does, and renders what is sent with vLLM's
own translation of each API and with chat templates that differ where real ones do. Prompts are
compared as bytes of the rendered text: the recordings' words are made up, so that tokens of a real
tokenizer would say nothing. Writes `canonical_prompts.json` and `canonical_prompts.md`:

- kept: bytes of the last prompt of its stream that a prompt repeats ÷ bytes of the last prompt;
- reused: bytes of all prompts that an infinite cache of 64-byte blocks has ÷ bytes of all prompts.

A stream is one agent of one run; a resumed run continues it, and a title or commit message is its
own. The few words by which git's state is
recognised are put back first. Gemini's requests, which the gateway translates, are left out.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import jinja2.sandbox

import recorded_calls
from client_streams import _FIRST_ONLY, _TEMPLATE
from holdfast.core.prompt_history import PromptHistory, stream_of
from holdfast.core.request_body import RequestBody
from holdfast.gateway.headers import by_lower_name
from holdfast.gateway.prompt_path import identity_of
from holdfast.policies.ours.canonical_prompt import (
    CanonicalPrompt,
    CanonicalPromptSettings,
    RuleName,
)
from holdfast.policies.requests import Request, RequestSent
from holdfast.report.manifest import run_manifest

RULES: Final[tuple[RuleName, ...]] = get_args(RuleName)
VARIANTS: Final[dict[str, tuple[RuleName, ...]]] = {
    "none": (),
    **{rule: (rule,) for rule in RULES},
    "all": RULES,
}
TEMPLATES: Final = {"in place": "", "system first": _FIRST_ONLY}
WORDS: Final = {"Igtsegz cbkblt": "Current branch", "Moagis uhlzopn": "Recent commits"}
BLOCK_BYTES: Final = 64
Call = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.recordings is None:
        print("left out: needs --recordings, a directory of clients' recorded requests")
        return
    paths = sorted(options.recordings.glob("*.jsonl.xz"))
    clients: dict[str, list[Call]] = defaultdict(list)
    for path in paths:
        for call in recorded_calls.calls_of(path):
            clients[recorded_calls.client_of(call)].append(call)
    rows = [row for client, calls in sorted(clients.items()) for row in measured(client, calls)]
    options.output.mkdir(parents=True, exist_ok=True)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    manifest = run_manifest(arguments={"block_bytes": BLOCK_BYTES}, runs=(), digests=digests)
    document = {"schema": "holdfast.canonical_prompts/1", "manifest": manifest, "rows": rows}
    path = options.output / "canonical_prompts.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "canonical_prompts.md").write_text(markdown(rows))
    print(markdown(rows))


def measured(client: str, calls: list[Call]) -> list[dict[str, Any]]:
    """A client's rows, one a chat template."""
    calls = sorted(calls, key=lambda call: call["t"])
    sent = {name: list(canonical(calls, rules)) for name, rules in VARIANTS.items()}
    for call, body in zip(calls, sent["none"], strict=True):
        assert body == text_of(call), "a request was rewritten without permission"
    rows = []
    for template, system in TEMPLATES.items():
        if system and any(call["path"] != "/v1/messages" for call in calls):
            continue  # engines refuse later messages of the system with such a template
        row: dict[str, Any] = {"client": client, "template": template, "calls": len(calls)}
        row["changes"] = changes(calls, sent["none"])
        for name, bodies in sent.items():
            if bodies == sent["none"] and name != "none":
                row[name] = row["none"]
                continue
            prompts = [
                rendered(call["path"], body, system)
                for call, body in zip(calls, bodies, strict=True)
            ]
            row[name] = shares(calls, prompts)
            row[name]["rewritten"] = sum(
                one != other for one, other in zip(bodies, sent["none"], strict=True)
            )
        rows.append(row)
        print(client, template, flush=True)
    return rows


def canonical(calls: Iterable[Call], rules: tuple[RuleName, ...]) -> Iterable[bytes]:
    """The bodies as a gateway with these rules sends them."""
    policy = CanonicalPrompt(CanonicalPromptSettings(rules=rules))
    for call in calls:
        request = request_of(call, text_of(call))
        text = policy.rewrite(request) or request.body.text
        policy.observe(RequestSent(request_of(call, text), call["t"], 0, 0))
        yield text


def text_of(call: Call) -> bytes:
    """The body of a recorded call, with the words back that recognisers read."""
    text = json.dumps(call["body"], ensure_ascii=False, separators=(",", ":"))
    for word, meant in WORDS.items():
        text = text.replace(word, meant)
    return text.encode()


def request_of(call: Call, text: bytes) -> Request:
    """What a policy sees of a call."""
    body = RequestBody.parse(text)
    assert body is not None
    headers = by_lower_name(dict(call["headers"]))
    return Request(call["path"], body, identity_of(headers, body, ""), call["t"])


def changes(calls: Iterable[Call], bodies: Iterable[bytes]) -> dict[str, int]:
    """What the gateway finds changed, by kind (counts)."""
    history = PromptHistory()
    found: Counter[str] = Counter()
    for call, text in zip(calls, bodies, strict=True):
        request = request_of(call, text)
        session = stream_of(request.identity.session_id, "", request.body)
        change = history.change(session, request.body)
        if change is not None and change.lost_bytes:
            found[change.kind] += 1
    return dict(found.most_common())


@functools.lru_cache(maxsize=4096)  # most rules change few requests
def rendered(path: str, text: bytes, system: str) -> bytes:
    """A prompt as a chat template shows it, after vLLM's own translation."""
    messages, tools = translated(path, text, merges=bool(system))
    source = _TEMPLATE.replace("SYSTEM", system).replace("THOUGHTS", "")
    template = _environment().from_string(source)
    return template.render(messages=messages, tools=tools, add_generation_prompt=True).encode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)

    def raise_exception(text: str) -> None:
        raise jinja2.TemplateError(text)

    environment.globals["raise_exception"] = raise_exception
    return environment


@functools.lru_cache(maxsize=4096)
def translated(path: str, text: bytes, *, merges: bool) -> tuple[list[Call], list[Call]]:
    """Messages and tools as a chat template gets them."""
    body = json.loads(text)
    tools = [tool.get("function", tool) for tool in body.get("tools") or []]
    if path == "/v1/messages":
        from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
        from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

        known = {
            name: body[name] for name in ("model", "messages", "system", "tools") if name in body
        }
        request = AnthropicServingMessages.to_chat_completion_request(
            AnthropicMessagesRequest(max_tokens=1, **known), merge_inline_system=merges
        )
        messages = [dict(message) for message in request.messages]
        tools = [tool.function.model_dump(exclude_none=True) for tool in request.tools or ()]
    elif path == "/v1/responses":
        from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
        from vllm.entrypoints.openai.responses.utils import construct_input_messages

        known = {name: body[name] for name in ("model", "input", "instructions") if name in body}
        parsed = ResponsesRequest(**known)
        messages = construct_input_messages(
            request_instructions=parsed.instructions, request_input=parsed.input
        )
    else:
        messages = body["messages"]
    return [shown(message) for message in messages], tools


def shown(message: Any) -> Call:
    """A message with its content as one text, as vLLM gives it to such templates."""
    found: Call = dict(message)
    content = found.get("content")
    if isinstance(content, list):
        texts = [
            str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content
        ]
        found["content"] = "\n".join(texts)
    if found.get("role") == "developer":
        found["role"] = "system"
    return found


def shares(calls: Sequence[Call], prompts: Sequence[bytes]) -> dict[str, float]:
    """What of prompts is kept and reused; see the module."""
    last: dict[tuple[str, str], bytes] = {}
    seen: set[bytes] = set()
    kept = before = reused = total = 0
    for number, (call, prompt) in enumerate(zip(calls, prompts, strict=True)):
        stream = recorded_calls.stream_of(call, str(number))
        if stream in last:
            kept += common_bytes(last[stream], prompt)
            before += len(last[stream])
        last[stream] = prompt
        hits, blocks = leading(prompt, seen)
        reused += hits * BLOCK_BYTES
        total += len(prompt)
        seen |= blocks
    return {"kept": round(kept / max(before, 1), 4), "reused": round(reused / max(total, 1), 4)}


def common_bytes(one: bytes, other: bytes) -> int:
    """Leading bytes that both have (count)."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def leading(prompt: bytes, seen: set[bytes]) -> tuple[int, set[bytes]]:
    """Leading blocks of a prompt that were seen (count), and hashes of all of them."""
    hasher = hashlib.blake2b(digest_size=12)
    hits, blocks = 0, []
    for start in range(0, len(prompt) - BLOCK_BYTES + 1, BLOCK_BYTES):
        hasher.update(prompt[start : start + BLOCK_BYTES])
        blocks.append(hasher.copy().digest())
        if hits == len(blocks) - 1 and blocks[-1] in seen:
            hits += 1
    return hits, set(blocks)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Two tables: what is kept with each rule, and what was found changed."""
    names = ["client", "template", "kept: none", *RULES, "all", "reused: none", "all"]
    lines = [names, ["---", "---", *["---:"] * (len(names) - 2)]]
    for row in rows:
        kept = [f"{row[name]['kept']:.1%}" for name in VARIANTS]
        reused = [f"{row[name]['reused']:.1%}" for name in ("none", "all")]
        lines.append([row["client"], row["template"], *kept, *reused])
    found = [["client", "calls", "changes found"], ["---", "---:", "---"]]
    for row in rows:
        if row["template"] == "in place":
            kinds = ", ".join(f"{kind} {number}" for kind, number in row["changes"].items())
            found.append([row["client"], str(row["calls"]), kinds or "none"])
    tables = ["".join(f"| {' | '.join(line)} |\n" for line in table) for table in (lines, found)]
    return "\n".join(tables)


if __name__ == "__main__":
    main()
