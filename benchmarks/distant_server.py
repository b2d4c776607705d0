"""Puts an MCP server on standard input and output at a distance.

python benchmarks/distant_server.py SECONDS COMMAND [ARGUMENT]...

Each message arrives so many seconds after it was sent, in both directions, in its order.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

LONGEST_LINE_BYTES = 1 << 26


async def main() -> None:
    delay_s, command = float(sys.argv[1]), sys.argv[2:]
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, limit=LONGEST_LINE_BYTES
    )
    assert server.stdin is not None
    assert server.stdout is not None
    requests = asyncio.StreamReader(limit=LONGEST_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    answers = asyncio.create_task(pass_lines(server.stdout, write_out, delay_s))
    await pass_lines(requests, server.stdin.write, delay_s)
    server.stdin.close()
    await answers
    await server.wait()


def write_out(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


async def pass_lines(
    source: asyncio.StreamReader, write: Callable[[bytes], object], delay_s: float
) -> None:
    on_their_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due_s, line = await on_their_way.get()
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            write(line)
            if not line:
                return

    delivering = asyncio.create_task(deliver())
    while True:
        line = await source.readline()
        on_their_way.put_nowait((time.monotonic() + delay_s, line))
        if not line:
            break
    await delivering


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(main())
    else:
        print(__doc__)
