"""Closed-loop load: a fixed number of sessions live at once.

Each session sends its next turn after the previous answer. A turn that fails ends its session, as
the conversation could not have gone on; the next session starts. A dead endpoint therefore ends a
run quickly, and every session records the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from holdfast.bench.client import Client, Completion, CompletionRequest
from holdfast.bench.prompts import Prompt, PromptBuilder
from holdfast.core.results import SessionRecord, TurnRecord
from holdfast.errors import ConfigError
from holdfast.traces.new_tokens import NewTokens
from holdfast.traces.record import Session, Turn
from holdfast.traces.turn_end_hint import turn_end_hint

__all__ = ["Load", "LoadRecords", "SendOptions"]


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Options that decide how sessions are sent.

    Attributes:
        concurrency: Sessions live at once, >= 1.
        time_scale: Replayed seconds per recorded second of a gap, >= 0.
        token_scale: Replayed tokens per recorded token.
        session_ids: Whether requests carry their session in `X-Session-ID`.
        turn_ends: Whether requests carry the end of their turn. A model with random weights cannot
            write the tool call that ends it, so Holdfast reads this instead, once the turn has
            ended; other engines ignore it.
    """

    concurrency: int
    time_scale: float = 1.0
    token_scale: float = 1.0
    session_ids: bool = False
    turn_ends: bool = True

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency!r}; expected at least 1")
        if not 0 <= self.time_scale < float("inf"):
            raise ConfigError(f"time-scale is {self.time_scale!r}; expected a number >= 0")


@dataclass(slots=True)
class LoadRecords:
    """Turns and sessions that have ended; valid even after an interruption.

    Attributes:
        turns: In the order in which they ended.
        sessions: In the order in which they ended.
        started_s: `time.monotonic` at the start, the zero of all recorded times.
        makespan_s: Start to the last event.
        partial: Whether the run was stopped before all sessions had ended.
    """

    turns: list[TurnRecord] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    started_s: float = 0.0
    makespan_s: float | None = None
    partial: bool = False


class Load:
    """One run of sessions against one endpoint.

    Args:
        client: Open connections to the endpoint.
        model: Name to send.
        sessions: Started in this order.
        options: Decide how they are sent.
        prompts: Builds the prompts; must have the options' token scale.
        on_turn: Called with each turn as it ends.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        sessions: Sequence[Session],
        options: SendOptions,
        prompts: PromptBuilder,
        on_turn: Callable[[TurnRecord], None] | None = None,
    ) -> None:
        for session in sessions:
            prompts.check(session)
        self.records = LoadRecords()
        self._client = client
        self._model = model
        self._sessions = sessions
        self._options = options
        self._prompts = prompts
        self._on_turn = on_turn
        self._new_tokens = NewTokens()

    async def run(self, stop: asyncio.Event | None = None) -> LoadRecords:
        """Run all sessions; returns early, with `partial` set, once `stop` is set.

        A cancellation ends the requests, completes `records` and is raised again.
        """
        queue = iter(self._sessions)
        num_workers = min(self._options.concurrency, len(self._sessions))
        self.records.started_s = monotonic()
        workers = [asyncio.create_task(self._work(queue)) for _ in range(num_workers)]
        try:
            await _all_or_stop(workers, stop)
        finally:
            for worker in workers:
                worker.cancel()
            outcomes = await asyncio.gather(*workers, return_exceptions=True)
            self.records.makespan_s = monotonic() - self.records.started_s
            self.records.partial = any(
                isinstance(outcome, asyncio.CancelledError) for outcome in outcomes
            )
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return self.records

    async def _work(self, queue: Iterator[Session]) -> None:
        for session in queue:
            await self._run_session(session)

    async def _run_session(self, session: Session) -> None:
        started_s = monotonic()
        ended_s = started_s
        is_completed = False
        try:
            for index, turn in enumerate(session.turns):
                prompt = self._prompts.build(session, index)
                body = self._client.encode(self._request(turn, prompt), self._model)
                due_s = ended_s + turn.gap_s * self._options.time_scale
                await asyncio.sleep(max(0.0, due_s - monotonic()))
                if index == 0:
                    started_s = monotonic()
                record = await self._send(session, index, prompt, body)
                ended_s = monotonic()
                if record.error_kind is not None:
                    return
            is_completed = True
        finally:
            self.records.sessions.append(
                SessionRecord(
                    session_id=session.session_id,
                    started_s=self._relative_s(started_s),
                    ended_s=self._relative_s(monotonic()),
                    is_completed=is_completed,
                )
            )

    def _request(self, turn: Turn, prompt: Prompt) -> CompletionRequest:
        extra: dict[str, Any] = {}
        turn_end = turn_end_hint(turn) if self._options.turn_ends else None
        if turn_end is not None:
            extra["vllm_xargs"] = {"holdfast_turn_end": turn_end}
        return CompletionRequest(prompt.token_ids, prompt.output_tokens, extra)

    async def _send(self, session: Session, index: int, prompt: Prompt, body: bytes) -> TurnRecord:
        headers = {"X-Session-ID": session.session_id} if self._options.session_ids else {}
        sent_blocks = self._new_tokens.note_sent(session, index)
        block_tokens = self._prompts.scale(session).block_tokens
        first_seen_tokens = len(prompt.token_ids) - sent_blocks * block_tokens
        completion = Completion(sent_s=monotonic())
        try:
            await self._client.complete(body, headers, completion)
        finally:
            record = self._record(session, index, prompt, first_seen_tokens, completion)
            self.records.turns.append(record)
            if self._on_turn is not None:
                self._on_turn(record)
        return record

    def _record(
        self,
        session: Session,
        index: int,
        prompt: Prompt,
        first_seen_tokens: int,
        completion: Completion,
    ) -> TurnRecord:
        sent_tokens = len(prompt.token_ids)
        received_tokens = completion.num_chunks
        return TurnRecord(
            session_id=session.session_id,
            turn_index=index,
            sent_s=self._relative_s(completion.sent_s),
            first_token_s=self._relative_or_none(completion.first_token_s),
            last_token_s=self._relative_or_none(completion.last_token_s),
            prompt_tokens=_known(completion.prompt_tokens, sent_tokens),
            appended_tokens=prompt.appended_tokens,
            first_seen_tokens=first_seen_tokens,
            output_tokens=_known(completion.output_tokens, received_tokens),
            cached_tokens=completion.cached_tokens,
            error_kind=completion.error_kind,
            error=completion.error,
        )

    def _relative_s(self, at_s: float) -> float:
        return at_s - self.records.started_s

    def _relative_or_none(self, at_s: float | None) -> float | None:
        return None if at_s is None else self._relative_s(at_s)


def _known(count: int | None, fallback: int) -> int:
    return fallback if count is None else count


async def _all_or_stop(workers: Sequence[asyncio.Task[None]], stop: asyncio.Event | None) -> None:
    """Wait for all workers, for the first one that fails, or for the stop."""
    if not workers:
        return
    finished = asyncio.ensure_future(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION))
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait((finished, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        finished.cancel()
        await asyncio.gather(stopped, finished, return_exceptions=True)
