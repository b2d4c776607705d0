"""A client of a real server: greedy answers to token ids, and counters."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.waiting import LONGEST_S, until

from holdfast.bench.scrape import parse_metrics
from holdfast.bench.server import EngineServer

__all__ = ["NUM_OUTPUT_TOKENS", "Answer", "EngineClient", "Tokens", "tokens_of"]

NUM_OUTPUT_TOKENS: Final = 12
Tokens = list[int]

_FINISHED = "vllm:request_success_total"
_SAMPLE = re.compile(r"^(\S+?)\{(.*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """The greedy continuation of a prompt, and its cached prompt tokens."""

    tokens: Tokens
    num_cached: int


class EngineClient:
    """The only client of one server, so that it can wait for the counters."""

    def __init__(self, server: EngineServer) -> None:
        self.server = server
        self._answered: list[str] = []  # by any thread

    def ask(self, prompt: Tokens, *, salt: str | None = None) -> Answer:
        """Send a prompt and wait for `NUM_OUTPUT_TOKENS`."""
        body = {
            "model": str(self.server.options.model),
            "prompt": prompt,
            "max_tokens": NUM_OUTPUT_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            **({} if salt is None else {"cache_salt": salt}),
        }
        content = self.post("/v1/completions", body)
        details = content["usage"].get("prompt_tokens_details") or {}
        return Answer(content["choices"][0]["token_ids"], details.get("cached_tokens") or 0)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send any request for an answer."""
        headers = {"Content-Type": "application/json"}
        url, data = self.server.url + path, json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=LONGEST_S) as response:
            content: dict[str, Any] = json.load(response)
        self._answered.append(path)
        return content

    def totals(self) -> dict[str, float]:
        """Each counter's sum, once vLLM's have all answers; Holdfast's follow later."""
        return dict(parse_metrics(self._page()).totals)

    def totals_with(self, *metrics: str) -> dict[str, float]:
        """The same, once all of these metrics are above 0."""

        def found() -> dict[str, float] | None:
            totals = self.totals()
            return totals if all(totals.get(metric, 0) > 0 for metric in metrics) else None

        return until(found) or {}

    def by_label(self, metric: str, label: str) -> Counter[str]:
        """A counter of vLLM or of the tiers by a label, once it has all answers."""
        counted: Counter[str] = Counter()
        for name, labels, value in _SAMPLE.findall(self._page()):
            found = re.search(rf'\b{label}="([^"]*)"', labels)
            if name == metric and found:
                counted[found[1]] += int(float(value))
        return counted

    def _page(self) -> str:
        num_answered = len(self._answered)

        def counted() -> str | None:
            with urllib.request.urlopen(self.server.url + "/metrics", timeout=LONGEST_S) as page:
                text: str = page.read().decode()
            return text if parse_metrics(text).totals.get(_FINISHED, 0) >= num_answered else None

        return until(counted) or ""


def tokens_of(answers: Iterable[Answer]) -> list[Tokens]:
    """The tokens of the answers."""
    return [answer.tokens for answer in answers]
