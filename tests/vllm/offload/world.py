"""A model, a pool of KV blocks, and sessions that continue from server to server.

What is right is what the same server answers when it finds nothing: the same prompt with a
`cache_salt` of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.engine_client import Answer, EngineClient, Tokens
from tests.waiting import until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig
from holdfast.errors import EngineError
from holdfast.pool.directory import PoolDirectory

__all__ = [
    "BLOCK_TOKENS",
    "KV_TOKENS",
    "LAST",
    "NUM_SESSIONS",
    "PROMPT_TOKENS",
    "TOOL_TOKENS",
    "Turns",
    "World",
    "cached_by_source",
    "refused_by_reason",
]

BLOCK_TOKENS: Final = 32
KV_TOKENS: Final = 1536
NUM_SESSIONS: Final = 6
PROMPT_TOKENS: Final = 330
TOOL_TOKENS: Final = 40
LAST: Final = NUM_SESSIONS - 1
"""The session that is not asked until the third server."""

_HOST_BLOCKS = 400  # every block before the first restart
_BLOCK_BYTES = BLOCK_TOKENS * 2 * 64 * 4  # keys and values of one head of 64 floats
_SUDDEN_DEATH = Path(__file__).parent / "sudden_death"


@dataclass(slots=True)
class Turns:
    """A server's answers, its answers without caches, and its counts."""

    answers: list[Answer] = field(default_factory=list)
    recomputed: list[Answer] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class World:
    """One model and one pool in a directory.

    Args:
        directory: Receives the model, the pool and the servers' logs.
        kv_tokens: Of each server's cache.
        max_model_len: Of each server.
    """

    def __init__(
        self, directory: Path, kv_tokens: int = KV_TOKENS, max_model_len: int = KV_TOKENS
    ) -> None:
        self.directory = directory
        self.pool = directory / "pool"
        self.death = directory / "death"
        self.model = build_tiny_model(directory / "model")
        self._kv_tokens = kv_tokens
        self._max_model_len = max_model_len
        self._random = random.Random(3)
        self._num_salts = 0
        self.prompts = [self.some(PROMPT_TOKENS) for _ in range(NUM_SESSIONS)]

    def some(self, num_tokens: int) -> Tokens:
        return [self._random.randrange(300, 2000) for _ in range(num_tokens)]

    @contextlib.contextmanager
    def server(self, name: str) -> Iterator[EngineClient]:
        config = HoldfastConfig(
            strict=True,
            host_gib=_HOST_BLOCKS * _BLOCK_BYTES / (1 << 30),
            pool_dir=str(self.pool),
            pool_gib=1.0,
            decision_log=str(self._log(name)),
        )
        options = EngineOptions(
            model=self.model,
            kv_tokens=self._kv_tokens,
            max_model_len=self._max_model_len,
            block_size_tokens=BLOCK_TOKENS,
            config=config,
            environ={
                "PYTHONPATH": os.pathsep.join(
                    [str(_SUDDEN_DEATH), *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
                "SUDDEN_DEATH_FILE": str(self.death),
            },
        )
        with EngineServer("holdfast", options, self.directory / f"{name}.log") as server:
            yield EngineClient(server)

    def misses(self, name: str) -> list[dict[str, Any]]:
        """Why the turns of a server missed, from its decision log."""
        lines = self._log(name).read_text(encoding="utf-8").splitlines()
        return [one for one in map(json.loads, lines) if one["event"] == "missed"]

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.decisions"

    def turns(self, client: EngineClient, sessions: Iterable[int]) -> Turns:
        """Take a turn of each session, one by one."""
        turns = Turns()
        sources, refused = cached_by_source(client), refused_by_reason(client)
        for session in sessions:
            turns.answers.append(client.ask(self.prompts[session]))
        turns.sources = cached_by_source(client) - sources
        turns.refused = refused_by_reason(client) - refused
        for session in sessions:
            self._num_salts += 1
            salt = f"{client.server.port}-{self._num_salts}"
            turns.recomputed.append(client.ask(self.prompts[session], salt=salt))
        return turns

    def go_on(self, turns: Turns, sessions: Iterable[int]) -> None:
        """Extend each session's prompt by its answer and a tool's result."""
        for session, answer in zip(sessions, turns.answers, strict=True):
            self.prompts[session] += answer.tokens + self.some(TOOL_TOKENS)

    def two_turns(self, client: EngineClient) -> tuple[Turns, Turns]:
        """Two turns of each session, with all their full blocks in the pool on return."""
        everyone = range(NUM_SESSIONS)
        first = self.turns(client, everyone)
        self.go_on(first, everyone)
        second = self.turns(client, everyone)
        self.go_on(second, everyone)
        for prompt in self.prompts:
            self.stored(prompt[: -TOOL_TOKENS - 1])  # an answer's last token is never computed
        return first, second

    def stored(self, prompt: Tokens) -> list[Path]:
        """The files of a prompt's full blocks, once the pool has them all."""
        names = _file_names(prompt)

        def found() -> list[Path] | None:
            paths = {path.name: path for path in self.block_files()}
            return [paths[name] for name in names] if paths.keys() >= set(names) else None

        return until(found) or []

    def block_files(self) -> list[Path]:
        files = PoolDirectory(self.pool).files()
        return [Path(file.path) for file in files if not file.is_temporary]

    def num_unfinished(self) -> int:
        return sum(file.is_temporary for file in PoolDirectory(self.pool).files())

    @contextlib.contextmanager
    def dying_at(self, client: EngineClient, call: str) -> Iterator[None]:
        """Kill the engine amid its next `call`, and wait until it is dead."""
        self.death.write_text(call, encoding="utf-8")
        # The answer may arrive before the kill.
        with contextlib.suppress(OSError, http.client.HTTPException):
            yield
        until(lambda: _is_dead(client.server))
        self.death.unlink()


def cached_by_source(client: EngineClient) -> Counter[str]:
    """Prompt tokens not computed since the server's start, by source."""
    return client.by_label("vllm:prompt_tokens_cached_by_source_total", "source")


def refused_by_reason(client: EngineClient) -> Counter[str]:
    """Blocks not loaded from the pool since the server's start, by reason."""
    return client.by_label("holdfast_pool_refused_blocks_total", "reason")


def _is_dead(server: EngineServer) -> bool:
    try:
        server.check_running()
    except EngineError:
        return True
    return False


def _file_names(prompt: Tokens) -> list[str]:
    """File names of a prompt's full blocks: vLLM's prefix hashes."""
    from vllm.utils.hashing import sha256_cbor

    block_hash, names = sha256_cbor("0"), []  # the servers' PYTHONHASHSEED
    for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
        block_hash = sha256_cbor((block_hash, tuple(prompt[end - BLOCK_TOKENS : end]), None))
        names.append(f"{block_hash.hex()}.bin")
    return names
