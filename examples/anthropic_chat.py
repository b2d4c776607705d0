"""A chat by the Anthropic client, which a human continues after pauses.

holdfast serve MODEL &
python examples/anthropic_chat.py http://127.0.0.1:8000 [TOKEN_OF_THE_ROUTES]
"""

from __future__ import annotations

import sys
from typing import Any

from anthropic import Anthropic

from holdfast.client import attach, expect, session

CHAT_ID = "chat-of-ada"  # as a database knows it
LINES = ("What is a KV cache?", "And a prefix cache?", "Thank you, that was all.")


def main(url: str, token: str | None = None) -> None:
    client = attach(Anthropic(base_url=url, api_key="none"), token=token)
    model = client.models.list().data[0].id
    messages: list[Any] = []
    for line in LINES:  # each of them may come from another process of a web service
        messages.append({"role": "user", "content": line})
        # A session that has a name stays open when its block ends.
        with session(CHAT_ID, agent_id="assistant") as chat, expect(turn_end="human", gap_s=60):
            chat.is_last_turn = line == LINES[-1]
            answer = client.messages.create(model=model, messages=messages, max_tokens=32)
        text = "".join(block.text for block in answer.content if block.type == "text")
        messages.append({"role": "assistant", "content": text})
        print(f"{line} -> {text!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
