"""Measures lengths of sessions and their parts, prompt growth and compactions."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict

import msgspec

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.mutations import mutation_of
from holdfast.workload.study.steps import SteppedSession

__all__ = ["EARLY_TURNS", "SIZE_BIN_TOKENS", "Compactions", "Shape", "ShapeMeter"]

EARLY_TURNS = 5
"""A session's first turns, up to this number, are early."""

SIZE_BIN_TOKENS = 16_384
"""Width of the bins in which compactions are counted."""


class Compactions(msgspec.Struct, frozen=True):
    """Compactions: a summary replaces the prompt.

    Attributes:
        num_compactions: Number of compactions.
        num_sessions: Sessions with at least one.
        before_tokens: Length of the prompt before each.
        size_ratio: Length of the new prompt relative to it.
        kept_ratio: Shared prefix of the two, relative to the prompt before.
        num_turns_by_size: Turns with a successor by the size of their prompt: an entry for each
            16,384 tokens, from 0.
        num_by_size: Compactions after such a turn; divided by the entry above, their probability.
    """

    num_compactions: int
    num_sessions: int
    before_tokens: Distribution
    size_ratio: Distribution
    kept_ratio: Distribution
    num_turns_by_size: tuple[int, ...]
    num_by_size: tuple[int, ...]


class Shape(msgspec.Struct, frozen=True):
    """Lengths, in turns and tokens.

    Attributes:
        num_sessions: Number of sessions, sub-agents included.
        num_turns: Turns of all sessions.
        num_turns_each: Turns of each session.
        first_prompt_tokens: First prompt of each session.
        peak_prompt_tokens: Largest prompt of each session.
        prompt_tokens: Prompt of each turn.
        output_tokens: Answer of each turn, by its trigger.
        growth_tokens: Tokens that each turn adds to the last prompt, if it extends it or replaces
            its tail; by trigger and `early` (up to the session's fifth turn) or `late`.
        user_turn_share: Share of each session's turns that the user triggers (0 to 1).
        tool_run_turns: Consecutive turns that tools trigger.
        compactions: Compactions.
    """

    num_sessions: int
    num_turns: int
    num_turns_each: Distribution
    first_prompt_tokens: Distribution
    peak_prompt_tokens: Distribution
    prompt_tokens: Distribution
    output_tokens: dict[str, Distribution]
    growth_tokens: dict[str, Distribution]
    user_turn_share: Distribution
    tool_run_turns: Distribution
    compactions: Compactions


class ShapeMeter:
    """Accumulates sessions."""

    def __init__(self) -> None:
        self._values: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._output: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._growth: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._num_compacted_sessions = 0
        self._turns_by_size: Counter[int] = Counter()
        self._compactions_by_size: Counter[int] = Counter()

    def add(self, session: SteppedSession) -> None:
        """Add a session."""
        turns = [step.turn for step in session.steps]
        prompts = [turn.prompt_tokens for turn in turns]
        self._values["turns"].append(len(turns))
        self._values["first"].append(prompts[0])
        self._values["peak"].append(max(prompts))
        self._values["prompt"].extend(prompts)
        by_user = [turn.trigger == "user" for turn in turns]
        self._values["user_share"].append(sum(by_user) / len(turns))
        self._values["tool_run"].extend(_tool_runs(by_user))
        for turn in turns:
            self._output[turn.trigger].append(turn.output_tokens)
        num_compactions = 0
        for turn_index in range(1, len(turns)):
            num_compactions += self._change(session, turn_index)
        self._num_compacted_sessions += num_compactions > 0

    def result(self) -> Shape:
        """The result for the sessions added so far."""
        values = self._values
        return Shape(
            num_sessions=len(values["turns"]),
            num_turns=len(values["prompt"]),
            num_turns_each=distribution_of(values["turns"]),
            first_prompt_tokens=distribution_of(values["first"]),
            peak_prompt_tokens=distribution_of(values["peak"]),
            prompt_tokens=distribution_of(values["prompt"]),
            output_tokens={name: distribution_of(each) for name, each in self._output.items()},
            growth_tokens={name: distribution_of(each) for name, each in self._growth.items()},
            user_turn_share=distribution_of(values["user_share"]),
            tool_run_turns=distribution_of(values["tool_run"]),
            compactions=self._compactions(),
        )

    def _change(self, session: SteppedSession, turn_index: int) -> bool:
        """Add a turn's change of the prompt before it; returns whether it is a compaction."""
        before, turn = session.steps[turn_index - 1].turn, session.steps[turn_index].turn
        size_bin = before.prompt_tokens // SIZE_BIN_TOKENS
        self._turns_by_size[size_bin] += 1
        mutation = mutation_of(session, turn_index)
        if mutation is None or mutation.kind == "tail":
            age = "early" if turn_index < EARLY_TURNS else "late"
            growth = turn.prompt_tokens - before.prompt_tokens
            self._growth[f"{turn.trigger} {age}"].append(growth)
        elif mutation.kind == "compaction":
            self._compactions_by_size[size_bin] += 1
            self._values["compacted"].append(before.prompt_tokens)
            self._values["compacted_size"].append(turn.prompt_tokens / before.prompt_tokens)
            self._values["compacted_kept"].append(mutation.depth_tokens / before.prompt_tokens)
            return True
        return False

    def _compactions(self) -> Compactions:
        num_bins = max(self._turns_by_size, default=-1) + 1
        return Compactions(
            num_compactions=len(self._values["compacted"]),
            num_sessions=self._num_compacted_sessions,
            before_tokens=distribution_of(self._values["compacted"]),
            size_ratio=distribution_of(self._values["compacted_size"]),
            kept_ratio=distribution_of(self._values["compacted_kept"]),
            num_turns_by_size=tuple(self._turns_by_size[size] for size in range(num_bins)),
            num_by_size=tuple(self._compactions_by_size[size] for size in range(num_bins)),
        )


def _tool_runs(by_user: list[bool]) -> list[int]:
    """Numbers of consecutive tool turns after each turn of the user."""
    starts = [index for index, is_user in enumerate(by_user) if is_user]
    ends = [*starts[1:], len(by_user)]
    return [end - start - 1 for start, end in zip(starts, ends, strict=True)]
