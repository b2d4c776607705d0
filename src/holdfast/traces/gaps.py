"""The known gap defect of published Claude Code traces: evidence and correction.

The recorder made each call twice, one after the other. Revisions that dropped the duplicates left
their time in `think_time`: it is 6-8 s too long and equals the time between two requests less the
kept call's own latency. Corrected files leave the duplicate's time out, and half of their tool gaps
are under a second. Gaps of other agents may also equal the whole time between calls, because they
made no duplicates; those gaps are not as long as their calls.

The file does not hold the duplicate's time. The duplicate answered the same prompt and took about
as long as the kept call, so the correction subtracts the kept call's latency.
`benchmarks/gap_defect.py` puts the defect into corrected files and measures the correction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from operator import add

__all__ = ["Gap", "GapEvidence"]

# Thresholds: they flag none of the family's 298 corrected files. With the defect put back they flag
# 214 of the 235 files that have enough gaps; the others hardly change. They flag none of 202 other
# agents' sessions whose gaps are all whole.
_MIN_GAPS = 8
_MATCHING_RATIO = 0.9
_SHORT_RATIO = 0.25
_BUNCHED_RATIO = 0.2
_COVERING_RATIO = 0.85
_ROUNDING_S = 1.0
_SHORT_S = 1.0
_BUNCH_S = (3.0, 12.0)
# In the corrected files no duplicate's time follows 3 % of the calls of 20-29 s, and 106 of the 118
# longer ones.
_LONGEST_REPEATED_S = 29.0


@dataclass(frozen=True, slots=True)
class Gap:
    """One recorded gap and the times that tell whether it has the defect.

    Attributes:
        recorded_s: The file's `think_time`.
        unexplained_s: Time between the two requests less the first one's latency; may be < 0.
        latency_s: Latency of the first request.
        after_tool: Whether a tool's result triggered the second request.
    """

    recorded_s: float
    unexplained_s: float
    latency_s: float
    after_tool: bool

    @property
    def is_whole(self) -> bool:
        """Whether the recorded time leaves no time for a duplicate call."""
        return abs(self.recorded_s - self.unexplained_s) <= _ROUNDING_S

    @property
    def is_repeated(self) -> bool:
        """Whether the call before was short enough to have been made twice."""
        return self.latency_s < _LONGEST_REPEATED_S

    @property
    def corrected_s(self) -> float:
        """The gap less the estimated time of a duplicate that the recorded gap contains."""
        if self.is_whole and self.is_repeated:
            return max(0.0, self.recorded_s - self.latency_s)
        return self.recorded_s


@dataclass(frozen=True, slots=True)
class GapEvidence:
    """Evidence for the defect in one file, or in several when added up.

    Attributes:
        num_gaps: Gaps well above the timestamps' rounding.
        num_matching_gaps: Those whose recorded time leaves no time for a duplicate call.
        num_tool_gaps: Gaps after a tool, of any length.
        num_short_tool_gaps: Tool gaps under 1 s.
        num_bunched_tool_gaps: Tool gaps of 3-12 s, where the defect moves the short ones.
        num_coverable_gaps: Tool gaps, > 0, after calls short enough to have been made twice.
        num_covering_gaps: Those at least half as long as that call: a duplicate fits in.
        num_pairs: Duplicates still present in the file; their time cannot be in its gaps.
        num_correctable_gaps: Gaps that the correction would change.
        num_unclear_gaps: Gaps, > 0, after a call without latency. They contain an unknown part of
            it and cannot be corrected.
    """

    num_gaps: int = 0
    num_matching_gaps: int = 0
    num_tool_gaps: int = 0
    num_short_tool_gaps: int = 0
    num_bunched_tool_gaps: int = 0
    num_coverable_gaps: int = 0
    num_covering_gaps: int = 0
    num_pairs: int = 0
    num_correctable_gaps: int = 0
    num_unclear_gaps: int = 0

    @classmethod
    def from_gaps(
        cls, gaps: Iterable[Gap], *, num_pairs: int = 0, num_unclear_gaps: int = 0
    ) -> GapEvidence:
        """Count the gaps of one file; pure."""
        gaps = list(gaps)
        telling = [gap for gap in gaps if gap.unexplained_s > 1.5 * _ROUNDING_S]
        tool = [gap.recorded_s for gap in gaps if gap.after_tool]
        coverable = [gap for gap in gaps if gap.after_tool and gap.recorded_s and gap.is_repeated]
        return cls(
            num_gaps=len(telling),
            num_matching_gaps=sum(gap.is_whole for gap in telling),
            num_tool_gaps=len(tool),
            num_short_tool_gaps=sum(gap_s < _SHORT_S for gap_s in tool),
            num_bunched_tool_gaps=sum(_BUNCH_S[0] <= gap_s <= _BUNCH_S[1] for gap_s in tool),
            num_coverable_gaps=len(coverable),
            num_covering_gaps=sum(gap.recorded_s >= gap.latency_s / 2 for gap in coverable),
            num_pairs=num_pairs,
            num_correctable_gaps=sum(gap.corrected_s != gap.recorded_s for gap in gaps),
            num_unclear_gaps=num_unclear_gaps,
        )

    def __add__(self, other: GapEvidence) -> GapEvidence:
        return GapEvidence(*map(add, astuple(self), astuple(other)))

    @property
    def is_sufficient(self) -> bool:
        """Whether there are enough gaps to detect the defect."""
        return min(self.num_gaps, self.num_tool_gaps) >= _MIN_GAPS

    @property
    def known_gap_defect(self) -> bool:
        """Whether the gaps look as if they contained the dropped duplicate calls."""
        return (
            self.is_sufficient
            and self.num_pairs == 0
            and self.num_matching_gaps >= _MATCHING_RATIO * self.num_gaps
            and self.num_short_tool_gaps <= _SHORT_RATIO * self.num_tool_gaps
            and self.num_bunched_tool_gaps >= _BUNCHED_RATIO * self.num_tool_gaps
            and self.num_covering_gaps >= _COVERING_RATIO * self.num_coverable_gaps
        )

    def __str__(self) -> str:
        return (
            f"{self.num_matching_gaps} of {self.num_gaps} gaps equal the whole time between calls; "
            f"{self.num_short_tool_gaps} of {self.num_tool_gaps} tool gaps are under 1 s, "
            f"{self.num_bunched_tool_gaps} are 3-12 s, {self.num_covering_gaps} of "
            f"{self.num_coverable_gaps} have time for a second call"
        )
