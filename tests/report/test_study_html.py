"""The page of a workload study: its content, and that it stands alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest
from tests.report.page_reader import read_page

from holdfast.errors import ConfigError
from holdfast.report.study_figures import FIGURES, study_svg
from holdfast.report.study_findings import (
    FINDINGS,
    format_seconds,
    format_share,
    format_tokens,
)
from holdfast.report.study_html import TITLES, render_study_html, write_study_html
from holdfast.traces.record import Session, Turn
from holdfast.workload.study.workload import EngineSize, Study, StudyOptions, WorkloadStudy
from holdfast.workload.synthetic import generate_sessions

pytest.importorskip("matplotlib")

ENGINE = EngineSize("tiny", 1024, 5_000, 1e-5, 0.01)


def studied(*sessions: Session, concurrency: tuple[int, ...] | None = (1, 2)) -> Study:
    study = WorkloadStudy(ENGINE, StudyOptions(concurrency=concurrency))
    for session in sessions:
        study.add(session)
    return study.finish({"note": "<script>alert(1)</script>"})


@cache
def synthetic() -> Study:
    study = WorkloadStudy(ENGINE, StudyOptions(concurrency=(1, 4, 999)))
    for session in generate_sessions(12, 0):
        study.add(session)
    study.add_tool_time("Bash", "npm test", 90.0)
    return study.finish({"note": "<script>alert(1)</script>"})


@cache
def synthetic_page() -> str:
    return render_study_html(synthetic())


def agent(
    name: str, *turns: tuple[float, int], first_block: int = 0, start_s: float = 0
) -> Session:
    """Turns of given blocks of ten tokens after given gaps, each extending the last."""
    return Session(
        name,
        10,
        tuple(
            Turn(
                gap_s, 10 * size, 1, tuple(range(first_block, first_block + size)), "user", "human"
            )
            for gap_s, size in turns
        ),
        "test",
        start_s=start_s,
    )


def test_page_is_self_contained_with_tags_closed() -> None:
    page = synthetic_page()
    reader = read_page(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.loaded)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    assert "http://" not in page
    assert "https://" not in page
    assert "&lt;script" in page


def test_every_section_opens_with_its_finding() -> None:
    study = synthetic()
    page = read_page(synthetic_page()).text
    for section, title in TITLES.items():
        _, _, below = page.partition(title)
        assert below.strip().startswith(FINDINGS[section](study))


def test_equal_studies_give_equal_pages() -> None:
    assert render_study_html(synthetic()) == synthetic_page()


def test_page_without_reuse_waits_or_agents() -> None:
    study = studied(agent("a", (0, 3)), agent("b", (0, 3), first_block=50))
    page = read_page(render_study_html(study)).text
    for sentence in (
        "Nothing is ever reused, so the size of the cache makes no difference.",
        "No session is recorded to wait between turns",
        "Every session is a single turn",
        "No sub-agents are recorded.",
    ):
        assert sentence in page
    assert TITLES["tools"] not in page
    assert [name for name in FIGURES if study_svg(study, name) is None] == [
        *("waits", "tools", "holding", "mutations")
    ]


def test_findings_are_computed_from_the_study() -> None:
    # 100 tokens, then 120 after two minutes: of 220 prompt tokens 100 are sent again.
    study = studied(agent("a", (0, 10), (120, 12)), concurrency=(1,))
    found = {section: FINDINGS[section](study) for section in FINDINGS if section != "tools"}
    # At 1e-5 s for a prompt token and 0.01 s for an answer's: 220 and 2 of them.
    assert "compute a session's prompts for 0.11 times as long" in found["shape"]
    assert (
        "45 % of all prompt tokens had been sent before, 45 % by the session" in found["prefixes"]
    )
    assert "compute 1.83 times the prompt tokens" in found["prefixes"]
    assert "100 % of the waits last over a minute" in found["waits"]
    assert "waits for a human own 100 % of them" in found["waits"]
    assert "a minute after its last use keeps 0 %" in found["holding"]
    assert "95 % needs 2.45 min" in found["holding"]
    # A cache of the first prompt's ten blocks hits them all; one of nine hits 90 of 100.
    assert study.loads[0].cliff is not None
    assert study.loads[0].cliff.edge_tokens == 100
    assert "smaller than 100 tokens" in found["cache"]
    assert "give 0.45 and 0.45 of at most 0.45" in found["cache"]


def test_finding_about_tools_gives_holding_time() -> None:
    study = WorkloadStudy(ENGINE, StudyOptions(concurrency=(1,)))
    study.add(agent("a", (0, 3)))
    for duration_s in (*[2.0] * 60, *[8.0] * 38, 300.0, 500.0):
        study.add_tool_time("Bash", "npm test", duration_s)
    study.add_tool_time("Read", None, 76.0)
    found = FINDINGS["tools"](study.finish())
    assert "of the kind shell take 94 % of all tool time" in found
    assert "half of their calls return within 2 s and 95 % within 8 s" in found
    assert "over a minute make up 65 % of that time" in found
    assert "KV held for 8 s is there when 95 % of these calls return" in found


def test_instant_tools_leave_no_idle_kv() -> None:
    study = WorkloadStudy(ENGINE, StudyOptions(concurrency=(1,)))
    study.add(agent("a", (0, 3)))
    study.add_tool_time("Read", None, 0.0)
    assert "no KV lies idle for tools" in FINDINGS["tools"](study.finish())


def test_append_only_prompts_lose_no_reuse() -> None:
    study = studied(agent("a", (0, 10), (120, 12)))
    assert FINDINGS["mutations"](study).startswith("Every prompt extends the one before it")


def test_overloaded_engine_needs_cache_for_all_sessions() -> None:
    # Both send ten blocks again and again, half an hour apart: by turns only without gaps.
    early = agent("a", *[(0.001, 10)] * 6)
    late = agent("b", (0, 1), (1800.0, 10), *[(0.001, 10)] * 5, first_block=50)
    study = studied(early, late, concurrency=(2,))
    (load,), (busy,) = study.loads, study.busy_loads
    assert load.cliff is not None
    assert busy.cliff is not None
    assert busy.cliff.half_tokens > 100 >= load.cliff.half_tokens
    assert "on an overloaded one" in FINDINGS["cache"](study)


def test_loads_with_too_few_sessions_are_left_out() -> None:
    assert [load.concurrency for load in synthetic().loads] == [1, 4]
    few = studied(agent("a", (0, 3)), concurrency=(5, 7))
    assert [load.concurrency for load in few.loads] == [5]


def test_recorded_arrivals_are_one_load() -> None:
    study = studied(agent("a", (0, 3)), agent("b", (0, 3), start_s=40.0), concurrency=None)
    (load,) = study.loads
    assert (load.concurrency, load.num_turns) == (None, 2)
    assert load.makespan_s > 40
    assert "sessions as they arrived" in FINDINGS["cache"](study)
    assert FINDINGS["working_set"](study).endswith(": they fit 95 % of the time.")
    assert "as they arrived" in render_study_html(study)


def test_sampled_study_gives_its_error() -> None:
    study = WorkloadStudy(ENGINE, StudyOptions(concurrency=(2,), sample_rate=0.2))
    for session in generate_sessions(6, 0):
        study.add(session)
    assert "with 95 % confidence" in render_study_html(study.finish())


def test_study_survives_json() -> None:
    study = synthetic()
    encoded = msgspec.json.encode(study)
    assert msgspec.json.decode(encoded, type=Study) == study
    plain = msgspec.json.decode(encoded)
    assert plain["schema"] == "holdfast.study/1"
    assert len(plain["percents"]) == len(plain["shape"]["prompt_tokens"]["percentiles"])


def test_names_are_escaped() -> None:
    session = agent("a", *[(1.0, 3)] * 30)
    turns = tuple(
        replace(turn, ended_by="tool", tool_name="<b>", tool_command="_$x$")
        for turn in session.turns
    )
    page = render_study_html(studied(replace(session, turns=turns)))
    assert "<b>" not in page
    assert "&lt;b&gt; _$x$" in page


def test_writing_leaves_only_the_page(tmp_path: Path) -> None:
    write_study_html(tmp_path / "new" / "page.html", studied(agent("a", (0, 3))))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_study_of_no_session_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no session"):
        WorkloadStudy(ENGINE).finish()


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1 k"),
        (92_800, "92.8 k"),
        (999_900, "1 M"),
        (2.5e9, "2.5 G"),
    ],
)
def test_tokens_have_three_digits(tokens: float, text: str) -> None:
    assert format_tokens(tokens) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.037, "0.037 s"), (9.4, "9.4 s"), (84.6, "85 s"), (150, "2.5 min"), (9000, "2.5 h")],
)
def test_times_have_a_fitting_unit(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_shares_near_their_ends_have_a_decimal() -> None:
    shown = [format_share(share) for share in (None, 0, 0.031, 0.5, 0.9712, 0.994, 1)]
    assert shown == ["\u2013", "0 %", "3.1 %", "50 %", "97 %", "99.4 %", "100 %"]
