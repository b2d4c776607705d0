"""An engine without a model whose answers take time, and less where a prompt's begin is cached.

python benchmarks/timed_engine.py

It prints its port and serves chat completions until it is told to end. Prompts are computed one
after the other, at a fixed rate of bytes; answers of running requests go on beside that. The cache
holds the messages of the last prompts by recency.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict

from aiohttp import web

CACHE_BYTES = 160_000
BYTES_PER_TOKEN = 4
PREFILL_BYTES_PER_S = 500_000.0
TOKEN_S = 0.01
BLOCK_TOKENS = 16
CHAT = "/v1/chat/completions"


class TimedEngine:
    """One engine; see the module."""

    def __init__(self) -> None:
        self._cached: OrderedDict[int, int] = OrderedDict()
        self._num_bytes = 0
        self._prefill = asyncio.Lock()

    def app(self) -> web.Application:
        """The routes that a gateway needs."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post(CHAT, self._answer)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = [json.dumps(each) for each in body["messages"]]
        num_bytes = sum(map(len, prompt))
        async with self._prefill:
            await asyncio.sleep(self._compute(prompt) / PREFILL_BYTES_PER_S)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(body["max_tokens"]):
            await response.write(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
            await asyncio.sleep(TOKEN_S)
        usage = {
            "prompt_tokens": num_bytes // BYTES_PER_TOKEN,
            "completion_tokens": body["max_tokens"],
        }
        last = {"choices": [{"finish_reason": "stop"}], "usage": usage}
        await response.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        return response

    def _compute(self, prompt: list[str]) -> int:
        """Cache a prompt; returns the bytes that were not cached."""
        missing_bytes, key = 0, 0
        for message in prompt:
            key = hash((key, message))
            if key not in self._cached:
                missing_bytes += len(message)
                self._num_bytes += len(message)
            self._cached[key] = len(message)
            self._cached.move_to_end(key)
        while self._num_bytes > CACHE_BYTES:
            self._num_bytes -= self._cached.popitem(last=False)[1]
        return missing_bytes

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        num_blocks = CACHE_BYTES // BYTES_PER_TOKEN // BLOCK_TOKENS
        labels = f'block_size="{BLOCK_TOKENS}",num_gpu_blocks="{num_blocks}"'
        return web.Response(text=f"vllm:cache_config_info{{{labels}}} 1.0\n")

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return web.Response()


async def main() -> None:
    """Serve on a free port."""
    logging.getLogger("aiohttp.server").disabled = True  # clients leave as they like
    runner = web.AppRunner(TimedEngine().app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
