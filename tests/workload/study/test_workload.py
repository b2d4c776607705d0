"""The whole study: its selection of tool calls."""

from __future__ import annotations

from holdfast.traces.record import Session, ToolSpan, Turn
from holdfast.workload.study.workload import EngineSize, WorkloadStudy


def test_tool_times_count_timed_foreground_calls_only() -> None:
    tools = (
        ToolSpan("Bash", "npm test", 1.5, 91.5),
        ToolSpan("Bash", "npm test", 0.0, 30.0),
        ToolSpan("Read", None, 0.0, 0.5),
        ToolSpan("Bash", "sleep &", 0.0, 500.0, is_background=True),
        ToolSpan("Bash", "make", None, 500.0),
        ToolSpan("Bash", "make", 500.0, None),
    )
    study = WorkloadStudy(EngineSize("tiny", 1024, 5_000, 1e-5, 0.01))
    study.add(Session("a", 10, (Turn(0.0, 20, 5, (0, 1), tools=tools),), "test"))
    by_kind = study.finish().tools_by_kind
    assert {kind: time.num_calls for kind, time in by_kind.items()} == {"shell": 2, "read": 1}
    assert by_kind["shell"].total_s == 120.0
    assert by_kind["shell"].long_time_share == 0.75
