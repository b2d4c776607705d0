"""What a reading holds, in a few figures: sessions, turns, tokens, gaps, reuse."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import msgspec

from holdfast.core.results import Distribution, ratio
from holdfast.traces.io import FileReport
from holdfast.traces.new_tokens import NewTokens, kept_blocks
from holdfast.traces.record import EndedBy, Session

__all__ = ["SCHEMA", "FileStatistics", "GapStatistics", "Statistics", "StatisticsDocument"]

SCHEMA = "holdfast.trace-stats/1"


class GapStatistics(msgspec.Struct, frozen=True):
    """Gaps behind answers that ended in one way.

    Attributes:
        num_gaps: How many.
        total_s: Their sum.
        gap_s: Their distribution; None without one.
    """

    num_gaps: int
    total_s: float
    gap_s: Distribution | None


class FileStatistics(msgspec.Struct, frozen=True):
    """One file; fields as in `FileReport`."""

    name: str
    format_name: str
    sha256: str
    known_gap_defect: bool
    num_corrected_gaps: int
    num_uncorrected_gaps: int
    num_estimated_gaps: int
    num_estimated_lengths: int
    num_unanswered: int
    num_orphans: int
    num_negative_values: int


class StatisticsDocument(msgspec.Struct, frozen=True):
    """All figures; a ratio without anything to divide by is None.

    Attributes:
        files: In the order they were read.
        num_sessions: Agents' streams, sub-agents included.
        num_sub_agents: Those that name a parent.
        num_arrivals: Those that arrive at a recorded time.
        num_turns: Requests.
        num_tool_calls: Calls that are recorded one by one.
        prompt_tokens: Of all prompts together.
        output_tokens: Of all answers together.
        turns_per_session: Distribution over sessions.
        tokens_per_prompt: Distribution over turns.
        tokens_per_answer: Distribution over turns.
        gaps: By what the answer before the gap asked for: "tool", "human" or "unknown".
        session_reuse_ratio: Share of prompt tokens that an earlier prompt of the session held.
        reading_reuse_ratio: Share that any earlier prompt of the reading held.
        distinct_tokens: Tokens in full blocks that differ: what a cache would have to hold.
        turns_by_model: Turns of each model that is recorded.
        calls_by_tool: Recorded calls of each tool.
        num_skipped: Parts of files that were left out because they are wrong.
        unread_files: Names of files that could not be read and were left out as a whole.
    """

    files: list[FileStatistics]
    num_sessions: int
    num_sub_agents: int
    num_arrivals: int
    num_turns: int
    num_tool_calls: int
    prompt_tokens: int
    output_tokens: int
    turns_per_session: Distribution | None
    tokens_per_prompt: Distribution | None
    tokens_per_answer: Distribution | None
    gaps: dict[str, GapStatistics]
    session_reuse_ratio: float | None
    reading_reuse_ratio: float | None
    distinct_tokens: int
    turns_by_model: dict[str, int]
    calls_by_tool: dict[str, int]
    num_skipped: int
    unread_files: list[str]
    schema: str = SCHEMA

    def to_json(self) -> bytes:
        """The document, indented, as UTF-8."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class Statistics:
    """Adds sessions up as they come; keeps some bytes a turn and each distinct block's id."""

    def __init__(self) -> None:
        self._files: list[FileReport] = []
        self._turns_per_session = array("d")
        self._prompts = array("d")
        self._answers = array("d")
        self._gaps: dict[EndedBy, array[float]] = {}
        self._new_tokens = NewTokens()
        self._counts: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._tools: Counter[str] = Counter()

    def add_file(self, report: FileReport) -> None:
        """Note a file that is read."""
        self._files.append(report)

    def add(self, session: Session) -> None:
        """Add one session; O(its blocks)."""
        counts = self._counts
        counts["sub_agents"] += session.parent_id is not None
        counts["arrivals"] += session.start_s is not None
        self._turns_per_session.append(len(session.turns))
        ended_by: EndedBy | None = None
        for index, turn in enumerate(session.turns):
            self._prompts.append(turn.prompt_tokens)
            self._answers.append(turn.output_tokens)
            if ended_by is not None:
                self._gaps.setdefault(ended_by, array("d")).append(turn.gap_s)
            ended_by = turn.ended_by
            size = session.block_size_tokens
            num_sent = self._new_tokens.note_sent(session, index)
            counts["sent_tokens"] += num_sent * size
            counts["kept_tokens"] += kept_blocks(session, index) * size
            counts["distinct_tokens"] += (len(turn.block_ids) - num_sent) * size
            if turn.model:
                self._models[turn.model] += 1
            self._tools.update(tool.name for tool in turn.tools)

    def summary(
        self, *, num_skipped: int = 0, unread_files: Sequence[str] = ()
    ) -> StatisticsDocument:
        """All figures so far; pure."""
        counts = self._counts
        prompt_tokens = int(sum(self._prompts))
        return StatisticsDocument(
            files=[_file_statistics(report) for report in self._files],
            num_sessions=len(self._turns_per_session),
            num_sub_agents=counts["sub_agents"],
            num_arrivals=counts["arrivals"],
            num_turns=len(self._prompts),
            num_tool_calls=self._tools.total(),
            prompt_tokens=prompt_tokens,
            output_tokens=int(sum(self._answers)),
            turns_per_session=Distribution.from_values(self._turns_per_session),
            tokens_per_prompt=Distribution.from_values(self._prompts),
            tokens_per_answer=Distribution.from_values(self._answers),
            gaps={
                ended_by: GapStatistics(len(gaps), sum(gaps), Distribution.from_values(gaps))
                for ended_by, gaps in sorted(self._gaps.items())
            },
            session_reuse_ratio=ratio(counts["kept_tokens"], prompt_tokens),
            reading_reuse_ratio=ratio(counts["sent_tokens"], prompt_tokens),
            distinct_tokens=counts["distinct_tokens"],
            turns_by_model=dict(self._models.most_common()),
            calls_by_tool=dict(self._tools.most_common()),
            num_skipped=num_skipped,
            unread_files=list(unread_files),
        )


def _file_statistics(report: FileReport) -> FileStatistics:
    return FileStatistics(
        name=report.name,
        format_name=report.format_name,
        sha256=report.sha256,
        known_gap_defect=report.known_gap_defect,
        num_corrected_gaps=report.num_corrected_gaps,
        num_uncorrected_gaps=report.num_uncorrected_gaps,
        num_estimated_gaps=report.num_estimated_gaps,
        num_estimated_lengths=report.num_estimated_lengths,
        num_unanswered=report.num_unanswered,
        num_orphans=report.num_orphans,
        num_negative_values=report.num_negative_values,
    )
