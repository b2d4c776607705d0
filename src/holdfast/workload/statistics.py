"""Summary figures of a reading: sessions, turns, tokens, gaps, reuse."""

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
    """Gaps after answers that ended in the same way.

    Attributes:
        num_gaps: Number of gaps.
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
    """All figures; a ratio with a zero denominator is None.

    Attributes:
        files: In reading order.
        num_sessions: Sessions, sub-agents included.
        num_sub_agents: Sessions that name a parent.
        num_arrivals: Sessions with a recorded arrival.
        num_turns: Requests.
        num_tool_calls: Individually recorded tool calls.
        prompt_tokens: Sum over all prompts.
        output_tokens: Sum over all answers.
        turns_per_session: Distribution over sessions.
        tokens_per_prompt: Distribution over turns.
        tokens_per_answer: Distribution over turns.
        gaps: By the end of the answer before the gap: "tool", "human" or "unknown".
        session_reuse_ratio: Share of prompt tokens in an earlier prompt of the same session.
        reading_reuse_ratio: Share of prompt tokens in any earlier prompt of the reading.
        distinct_tokens: Tokens in distinct full blocks: the size of a cache that never evicts.
        turns_by_model: Turns of each recorded model.
        calls_by_tool: Recorded calls of each tool.
        num_skipped: Malformed parts of files that were left out.
        unread_files: Names of unreadable files that were left out as a whole.
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
    """Accumulates sessions; keeps a few bytes a turn and each distinct block id."""

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
        """Add a file's report."""
        self._files.append(report)

    def add(self, session: Session) -> None:
        """Add one session; O(blocks of the session)."""
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
