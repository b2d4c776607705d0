"""A lead agent that starts sub-agents at once, waits for all of them and reads their answers.

holdfast serve MODEL &
python examples/sub_agents.py http://127.0.0.1:8000 [TOKEN_OF_THE_ROUTES]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from openai import AsyncOpenAI

from holdfast.client import agent, attach, session

QUESTION = "Why are prefix caches evicted too early when agents wait for their tools?"
ANGLES = ("the scheduler", "the cache", "the client")


async def main(url: str, token: str | None = None) -> None:
    async with attach(AsyncOpenAI(base_url=f"{url}/v1", api_key="none"), token=token) as client:
        model = (await client.models.list()).data[0].id

        async def ask(messages: list[Any]) -> str:
            answer = await client.chat.completions.create(
                model=model, messages=messages, max_tokens=32
            )
            return answer.choices[0].message.content or ""

        async def research(angle: str) -> str:
            # A session of its own, which the engine knows to be awaited by the lead's.
            with agent("researcher"):
                instructions = {"role": "system", "content": "You answer in one sentence."}
                question = {"role": "user", "content": f"{QUESTION} Look at {angle}."}
                return await ask([instructions, question])

        with session(agent_id="lead"):
            messages = [{"role": "user", "content": f"Split this question in three: {QUESTION}"}]
            messages.append({"role": "assistant", "content": await ask(messages)})
            # Blocks follow tasks: each sub-agent has its own, and the lead's is around them all.
            findings = await asyncio.gather(*map(research, ANGLES))
            messages.append({"role": "user", "content": "\n".join(("Findings:", *findings))})
            print("conclusion:", await ask(messages))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
