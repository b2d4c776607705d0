"""Sends control requests from an API process to the engine cores of its server.

A request is one of vLLM's utility calls, which the engine core takes between two steps, also while
it is idle. A utility call names an attribute of the engine core; `scheduler` is one, and
`HoldfastScheduler` can be called.

Process: API server. Checked on vLLM 0.28 ... 0.33; imports nothing of it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from holdfast.vllm.control.messages import ControlRequest, encode

__all__ = ["ChannelError", "EngineChannel"]

_METHOD: Final = "scheduler"
_TIMEOUT_S: Final = 10.0
_MAX_OPEN: Final = 64
_CHECK_INTERVAL_S: Final = 0.1


class ChannelError(Exception):
    """The engines did not answer.

    Attributes:
        status: HTTP status that tells the client.
        message: The reason.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineChannel:
    """Asks all engine cores of a server.

    Args:
        timeout_s: Longest wait for answers (s).
        max_open: Requests that may wait for answers at once (count).
    """

    def __init__(self, timeout_s: float = _TIMEOUT_S, max_open: int = _MAX_OPEN) -> None:
        self._timeout_s = timeout_s
        self._max_open = max_open
        self._num_open = 0

    async def ask(self, engine_client: Any, request: ControlRequest) -> list[bytes]:
        """The answers of all engines, in order of their numbers.

        Args:
            engine_client: vLLM's; None on a server without an engine.
            request: The request.

        Raises:
            ChannelError: There is no engine, too many requests wait, an engine is dead, refuses or
                does not answer in time.
        """
        core: Any = getattr(engine_client, "engine_core", None)
        engines = list(getattr(core, "core_engines", ()))
        if not engines:
            raise ChannelError(503, "this server has no engine")
        if self._num_open >= self._max_open:
            raise ChannelError(429, f"{self._max_open} requests wait for the engine; try again")
        data = encode(request)
        self._num_open += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                calls = (core._call_utility_async(_METHOD, data, engine=e) for e in engines)  # noqa: SLF001
                return await _unless_dead(asyncio.gather(*calls), engine_client)
        except ChannelError:
            raise
        except TimeoutError as error:
            message = f"no answer of the engine in {self._timeout_s:g} s; it may still follow"
            raise ChannelError(504, message) from error
        except Exception as error:  # vLLM's errors have no common class
            raise ChannelError(503, f"the engine cannot answer: {error}") from error
        finally:
            self._num_open -= 1


async def _unless_dead(calls: asyncio.Future[list[bytes]], engine_client: Any) -> list[bytes]:
    """The results of calls, which vLLM leaves open where an engine dies.

    Raises:
        ChannelError: An engine is dead.
    """
    try:
        while not (await asyncio.wait((calls,), timeout=_CHECK_INTERVAL_S))[0]:
            if getattr(engine_client, "errored", False):
                raise ChannelError(503, "the engine cannot answer: it has died")
        return calls.result()
    finally:
        calls.cancel()
