"""An engine server as a child process, ended together with its own children."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from holdfast.bench.model import BLOCK_SIZE_TOKENS
from holdfast.config import ENVIRONMENT_PREFIX, HoldfastConfig, to_environ
from holdfast.errors import EngineError

__all__ = ["EngineOptions", "EngineServer", "ServedPolicy"]

ServedPolicy = Literal["vllm-default", "holdfast"]

COUNTED_STOCK_SCHEDULER: Final = "holdfast.vllm.stock.CountedAsyncScheduler"
"""Stock scheduling that counts evictions as Holdfast does."""

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1
_PROBE_TIMEOUT_S = 30.0
_NUM_PORTS = 3
_TAIL_LINES = 25
_PORT_TAKEN = "Address already in use"
_CORE_ERROR = re.compile(r"\(EngineCore[^)]*\) ERROR .*?\] ([\w.]+(?:Error|Exception): .+)")
_NOT_INHERITED = ("PROMETHEUS_MULTIPROC_DIR",)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of one server; with equal options two servers differ in scheduling only.

    Attributes:
        model: Directory of the model.
        kv_tokens: Size of the KV cache, rounded up to whole blocks.
        max_model_len: Longest prompt plus output, in tokens; the cache must hold one.
        block_size_tokens: Tokens in a KV block; CPU attention takes multiples of 32.
        max_num_seqs: Requests that may run at once.
        max_num_batched_tokens: Tokens computed in one engine step.
        config: Holdfast's settings; `vllm-default` ignores them.
        extra_arguments: Further arguments for vLLM, after all others.
        environ: Further variables for the server.
    """

    model: Path
    kv_tokens: int
    max_model_len: int
    block_size_tokens: int = BLOCK_SIZE_TOKENS
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    config: HoldfastConfig = field(default_factory=HoldfastConfig)
    extra_arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        """Blocks of the KV cache, with the one that vLLM keeps for padding."""
        return -(-self.kv_tokens // self.block_size_tokens) + 1


class EngineServer:
    """One running server, as a context manager that leaves no process running.

    Args:
        policy: `vllm-default` (stock, evictions counted) or `holdfast` (through `holdfast serve`).
        options: Its options.
        log_path: File that receives all its output.
        start_timeout_s: Longest wait until it answers `/health`.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        options: EngineOptions,
        log_path: Path,
        *,
        start_timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        self.policy: ServedPolicy = policy
        self.options = options
        self.log_path = log_path
        self.port = _free_port()
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base address, without a path."""
        return f"http://{_HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers.

        Takes another port if its own is in use.

        Raises:
            EngineError: It ended or did not answer in time; the message has the end of its log.
        """
        for _ in range(_NUM_PORTS - 1):
            try:
                self._start()
            except EngineError:
                if not self._is_port_taken():
                    raise
                self.stop()
                self.port = _free_port()
            else:
                return
        self._start()

    def _start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches us only, and the whole group can be ended.
                start_new_session=True,
            )
        deadline_s = time.monotonic() + self._start_timeout_s
        while not self._answers("GET", "/health"):
            status = self._process.poll()
            if status is not None:
                raise self._failure(f"ended with status {status} before it answered")
            if time.monotonic() > deadline_s:
                raise self._failure(f"did not answer within {self._start_timeout_s:.0f} s")
            time.sleep(_POLL_INTERVAL_S)

    def stop(self) -> None:
        """End the server and every process it started, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        group_id = process.pid  # start_new_session made it the leader
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        # Processes that outlived their parent or ignored the signal.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group_id, signal.SIGKILL)
        process.wait()
        _wait_until_gone(group_id)

    def check_running(self) -> None:
        """Check that the server runs and answers.

        Raises:
            EngineError: It does not; the message has the end of its log.
        """
        if not self.is_running or not self._answers("GET", "/health"):
            raise self._failure("died")

    def reset_prefix_cache(self) -> None:
        """Drop every cached block; what Holdfast learned is kept.

        Raises:
            EngineError: The server refuses, for example because a request runs.
        """
        if not self._answers("POST", "/reset_prefix_cache"):
            raise self._failure("did not reset its prefix cache")

    def command(self) -> list[str]:
        """The command line of the server."""
        options = self.options
        entry = ["-m", "holdfast", "serve"]
        scheduler: list[str] = []
        if self.policy == "vllm-default":
            entry = ["-m", "holdfast.vllm.serve"]
            scheduler = ["--scheduler-cls", COUNTED_STOCK_SCHEDULER]
        return [
            *(sys.executable, *entry, str(options.model)),
            *("--host", _HOST, "--port", str(self.port)),
            *("--dtype", "float32"),  # bfloat16 is emulated on most CPUs
            *("--max-model-len", str(options.max_model_len)),
            *("--max-num-seqs", str(options.max_num_seqs)),
            *("--max-num-batched-tokens", str(options.max_num_batched_tokens)),
            *("--block-size", str(options.block_size_tokens)),
            *("--num-gpu-blocks-override", str(options.num_blocks)),
            *("--enforce-eager", "--enable-prefix-caching", "--enable-prompt-tokens-details"),
            *("--disable-uvicorn-access-log", "--no-enable-log-requests"),
            *scheduler,
            *options.extra_arguments,
        ]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The server's variables: `inherited`, its settings, and those of a benchmark."""
        kept = {
            name: value
            for name, value in inherited.items()
            if not name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_INHERITED
        }
        ours = to_environ(self.options.config) if self.policy == "holdfast" else {}
        return {
            # The smallest CPU cache that vLLM takes (GiB); an argument sets the number of blocks.
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # By default vLLM reserves one core more with a connector, and none of two cores:
            # servers with and without tiers would not be comparable.
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "1",
            **kept,
            "HF_HUB_OFFLINE": "1",
            "HOLDFAST_END_WITH_PARENT": str(os.getpid()),
            "PYTHONHASHSEED": "0",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_DO_NOT_TRACK": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",  # /reset_prefix_cache
            **ours,
            **self.options.environ,
        }

    def _answers(self, method: str, path: str) -> bool:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request(method, path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failure(self, event: str) -> EngineError:
        lines = self._log_lines()
        tail = "\n".join(lines[-_TAIL_LINES:])
        hint = f"the whole log is in {self.log_path}"
        if self._is_port_taken():
            hint = f"another process took port {self.port} in the meantime; run again ({hint})"
        # The server's own traceback only says that the engine core failed.
        causes = [found[1] for line in lines if (found := _CORE_ERROR.match(line))]
        cause = f": {causes[-1]}" if causes else ""
        return EngineError(
            f"the {self.policy} server {event}{cause}; the end of its log:\n{tail}", hint=hint
        )

    def _is_port_taken(self) -> bool:
        return any(_PORT_TAKEN in line for line in self._log_lines()[-_TAIL_LINES:])

    def _log_lines(self) -> list[str]:
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_gone(group_id: int) -> None:
    """Wait until the killed processes have returned their memory."""
    deadline_s = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            os.killpg(group_id, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(_POLL_INTERVAL_S)
