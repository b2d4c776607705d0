"""ASGI middleware: the tiny model calls a shell tool once in each conversation, then answers.

Inside of Holdfast's middleware. `LIVE_TEST_MODEL` is the model's directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from holdfast.core.request_body import RequestBody
from holdfast.vllm.client_body import with_entries

__all__ = ["ScriptedAnswers"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
_COMMANDS = {"exec_command": "cmd", "shell_command": "command", "Bash": "command"}


class ScriptedAnswers:
    """Adds `scripted_output` to requests.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        from tokenizers import Tokenizer

        path = Path(os.environ["LIVE_TEST_MODEL"], "tokenizer.json")
        self._app = app
        self._tokenizer = Tokenizer.from_file(str(path))

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        """Handle one connection; see ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        text = b"".join(message.get("body", b"") for message in messages)
        body = RequestBody.parse(text)
        if body is not None:
            encoding = self._tokenizer.encode(_answer(json.loads(text)), add_special_tokens=False)
            text = with_entries(body, "vllm_xargs", {"scripted_output": list(encoding.ids)})
        pending = [{"type": "http.request", "body": text, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(text)))
        await self._app({**scope, "headers": headers}, replay, send)


def _answer(body: dict[str, Any]) -> str:
    """A call of the client's shell tool; text without one, and after its result."""
    tools = body.get("tools") or ()
    names = [tool.get("name") or tool.get("function", {}).get("name") for tool in tools]
    name = next((name for name in names if name in _COMMANDS), None)
    said = json.dumps(body.get("messages") or body.get("input"))
    if name is None or "tool_result" in said or "function_call_output" in said:
        return "All is well.<|im_end|>"
    arguments = {_COMMANDS[name]: "echo looked", "description": "Look"}
    call = json.dumps({"name": name, "arguments": arguments})
    return f"I look.\n<tool_call>\n{call}\n</tool_call><|im_end|>"
