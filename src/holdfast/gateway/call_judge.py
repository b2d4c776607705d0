"""Judges the tool calls of one answer, also those in its texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple

from prometheus_client import Counter as Metric

from holdfast.core.identity import Identity
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.policies.requests import Request, ToolCall, Verdict
from holdfast.tool_calls.call_arguments import canonical_arguments
from holdfast.tool_calls.call_text import CallScanner, PlacedCall, UnreadableCallError

__all__ = ["Ask", "CallJudge", "Decided", "JudgedText", "TextVerdict", "Told"]

Ask = Callable[[str, str], Verdict]
"""Judges a call by its name and arguments."""

Decided = dict[bytes, list[Verdict]]
"""What was decided about the calls of an answer, in their order, by digest of name and arguments.
"""

Told = Callable[[str, Identity, Decided], None]
"""Takes an answer's id, whose it is, and what is decided about its calls, now or later."""

_DIGEST_BYTES: Final = 16
_UNREADABLE: Final = Verdict(
    "deny", "unreadable", "[A tool call was not made: what was written of it cannot be read.]"
)


class CallJudge:
    """Judges the calls of one answer.

    Args:
        policies: Are asked.
        request: What is answered.
        unjudged: Counts what cannot be judged, by reason.
        told: Is told the answer's id and what was decided, if given.
        before: What was decided when the answer was given before; None if it is new.
    """

    def __init__(
        self,
        policies: RequestPolicies,
        request: Request,
        unjudged: Metric,
        told: Told | None = None,
        before: Decided | None = None,
    ) -> None:
        self._policies = policies
        self._request = request
        self._unjudged = unjudged
        self._told = told
        self._decided: Decided = {} if before is None else before
        self._texts: dict[str, TextVerdict] = {}  # those with denied calls
        self._met: Counter[bytes] | None = None if before is None else Counter()

    def judge(self, name: str, arguments: str) -> Verdict:
        """Judge the next call; in an answer that was given before, as then. Mutates."""
        if self._met is None:
            return self._judge(name, arguments)
        return self._repeated(self._met, name, arguments)

    def _judge(self, name: str, arguments: str) -> Verdict:
        """Judge a call that has not been met in this answer. Mutates counts and policies."""
        verdict = self._policies.judged(self._request, ToolCall(name, arguments))
        self._decided.setdefault(_key(name, arguments), []).append(verdict)
        return verdict

    def deny(self, name: str, arguments: str, verdict: Verdict) -> None:
        """Take in that a call was denied unread, so that it stays denied. Mutates."""
        self._decided.setdefault(_key(name, arguments), []).append(verdict)

    def again(self) -> Ask:
        """What judges a part that repeats calls of this answer, in their order."""
        return partial(self._repeated, Counter())

    def _repeated(self, met: Counter[bytes], name: str, arguments: str) -> Verdict:
        key = _key(name, arguments)
        known, number = self._decided.get(key, ()), met[key]
        met[key] += 1
        return known[number] if number < len(known) else self._judge(name, arguments)

    def judge_text(self, text: str) -> TextVerdict:
        """Judge a whole text, whose calls may repeat those of this answer. Mutates."""
        known = self._texts.get(text)
        if known is not None:
            return known
        judged = JudgedText(self, self.again())
        judged.feed(text)
        judged.end()
        found = TextVerdict(judged.cut_from, judged.verdict)
        if found.verdict is not None:
            self._texts[text] = found
        return found

    def unreadable(self) -> Verdict:
        """Deny a call that cannot be read. Mutates counts."""
        return self._deny("unreadable", _UNREADABLE)

    def too_long(self, num_bytes: int) -> Verdict:
        """Deny a call that is longer than what is held of an answer. Mutates counts."""
        text = f"[A tool call was not made: it is longer than {num_bytes >> 20} MiB.]"
        return self._deny("too_long", Verdict("deny", "too long", text))

    def learn_id(self, answer_id: object) -> None:
        """Take in the id by which the answer may be asked for again. Mutates."""
        if self._told is not None and isinstance(answer_id, str):
            self._told(answer_id, self._request.identity, self._decided)

    def _deny(self, reason: str, verdict: Verdict) -> Verdict:
        self._unjudged.labels(reason).inc()
        self._policies.note(self._request, ToolCall(""), verdict)
        return verdict


class TextVerdict(NamedTuple):
    """What is decided about a text.

    Attributes:
        cut_from: Offset from which on it does not pass; None if all of it does.
        verdict: Why; None if all of it passes.
    """

    cut_from: int | None
    verdict: Verdict | None

    def kept(self, start: int, piece: str) -> str:
        """What passes of a piece that begins at an offset. Pure."""
        return piece if self.cut_from is None else piece[: max(0, self.cut_from - start)]


class JudgedText:
    """A text of an answer, which is held from where a call may begin.

    Args:
        judge: Of the answer.
        ask: Its method for calls that are found; None takes them for new ones.

    Attributes:
        cut_from: Offset from which on the text does not pass; None if all of it does.
        verdict: Why; None if all of it passes.
    """

    def __init__(self, judge: CallJudge, ask: Ask | None = None) -> None:
        self._judge = judge
        self._ask = ask or judge.judge
        self._scanner = CallScanner()
        self._has_ended = False
        self.cut_from: int | None = None
        self.verdict: Verdict | None = None

    @property
    def num_chars(self) -> int:
        """Length of the text so far."""
        return self._scanner.num_chars

    @property
    def is_held(self) -> bool:
        """Whether the end of the text may be a call that is not yet judged."""
        return self.cut_from is None and not self._has_ended and self._scanner.held_from is not None

    def feed(self, piece: str) -> None:
        """Take in more text, and judge calls that it ends. Mutates."""
        if self._has_ended:  # a text that goes on after its end is another one
            self._scanner, self._has_ended = CallScanner(self.num_chars), False
        if self.cut_from is None:
            self._decide(self._scanner.feed(piece))
        else:
            self._scanner.num_chars += len(piece)

    def end(self) -> None:
        """Judge what is held: the text is complete. Mutates."""
        if not self.is_held:
            return
        try:
            self._decide(self._scanner.end())
        except UnreadableCallError:
            self.cut(self._judge.unreadable())
        self._has_ended = True

    def cut(self, verdict: Verdict) -> None:
        """Let nothing of what is held pass, nor what follows. Mutates."""
        if self.is_held:
            self._cut(self._scanner.held_from or 0, verdict)

    def kept(self, start: int, piece: str) -> str:
        """What passes of a piece that begins at an offset. Pure."""
        return TextVerdict(self.cut_from, self.verdict).kept(start, piece)

    def _decide(self, calls: Iterable[PlacedCall]) -> None:
        for offset, call in calls:
            verdict = self._ask(call.name, call.arguments)
            if not verdict.is_allowed and self.cut_from is None:
                self._cut(offset, verdict)

    def _cut(self, offset: int, verdict: Verdict) -> None:
        self.cut_from, self.verdict = offset, verdict


def _key(name: str, arguments: str) -> bytes:
    text = f"{name}\x00{canonical_arguments(arguments)}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()
