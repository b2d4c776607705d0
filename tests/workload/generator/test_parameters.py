"""Parameter sets: checks, files, tables, and fits to studies."""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.workload.generator.builders import (
    Damage,
    damaged,
    damages,
    families_of,
    independent,
    parameters_of,
    sessions_of,
    traits,
)

from holdfast.errors import ConfigError, HoldfastError
from holdfast.workload.generator.files import fit_study, load_set, set_names, set_text
from holdfast.workload.generator.fit import fitted
from holdfast.workload.generator.parameters import Agent, Parameters
from holdfast.workload.generator.table import value_at
from holdfast.workload.study.distribution import distribution_of
from holdfast.workload.study.profile import RewriteProfile
from holdfast.workload.study.profile_meter import ProfilesMeter
from holdfast.workload.study.steps import Stepper
from holdfast.workload.study.workload import SCHEMA as STUDY_SCHEMA

STEP = {"output_tokens": 5, "next": {"work": 1}}


def agent(**fields: Any) -> dict[str, Any]:
    return {
        "num_turns": 3,
        "roles": {"": {"prompt_tokens": 105}},
        "steps": {"work": STEP},
        "first": {"work": 1},
    } | fields


def _study(set_name: str, num_families: int) -> dict[str, Any]:
    stepper, meter = Stepper(), ProfilesMeter()
    for family in families_of(load_set(set_name), num_families):
        meter.add(tuple(map(stepper.follow, family)))
    return {"schema": STUDY_SCHEMA, "profiles": meter.result()}


STUDY = _study("claude-code-tools", 6)


class TestTables:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(0, 1))
    def test_values_lie_between_neighbouring_entries(
        self, values: list[float], share: float
    ) -> None:
        table = tuple(sorted(values))
        percents = tuple(np.linspace(0, 100, len(table)).tolist())
        found = value_at(table, percents, share)
        index = min(int(share * (len(table) - 1)), len(table) - 2)
        slack = 1e-6 * (1 + abs(found))
        assert table[max(0, index - 1)] - slack <= found <= table[index + 1] + slack
        assert value_at(table, percents, 1.0) == pytest.approx(table[-1])

    def test_large_values_interpolated_by_factors(self) -> None:
        assert value_at((100.0, 10_000.0), (0.0, 100.0), 0.5) == pytest.approx(1000, rel=0.01)


class TestLimits:
    def test_compaction_limits_follow_chances(self) -> None:
        limited = msgspec.convert(
            agent(compaction_chances=[0.0, 0.5, 0.5]) | {"rewrites": {"compaction": {}}}, Agent
        )
        limits = [limited.limit_tokens(share) for share in np.arange(0, 1, 0.001).tolist()]
        bins = np.minimum(np.array(limits) // 16_384, 3)
        assert np.bincount(bins.astype(int)).tolist() == [0, 500, 250, 250]
        assert limits == sorted(limits)

    def test_no_chances_mean_no_limit(self) -> None:
        assert msgspec.convert(agent(), Agent).limit_tokens(0.99) == float("inf")


@pytest.mark.parametrize(
    ("agents", "fields", "said"),
    [
        ({"other": agent()}, {}, "no 'main'"),
        ({"main": agent(num_turns=[1, 2, 3])}, {}, r"agents.main.num_turns. has 3 entries"),
        ({"main": agent(num_turns=[3, 1])}, {}, "ascending"),
        ({"main": agent(num_turns=[float("nan"), 1])}, {}, "a number up to 100,000"),
        ({"main": agent(steps={"work": STEP | {"gap_s": 1e9}})}, {}, "up to 100,000,000"),
        ({"main": agent(num_turns=-1)}, {}, "at least 0"),
        ({"main": agent()}, {"percents": [0, 50]}, "from 0 to 100"),
        ({"main": agent(first={"play": 1})}, {}, r"agents.main.first. names 'play'"),
        ({"main": agent(first={})}, {}, "no weight above 0"),
        ({"main": agent(steps={"work": STEP | {"next": {"rest": 1}}})}, {}, "names 'rest'"),
        ({"main": agent(steps={"work": STEP | {"role": "judge"}})}, {}, "is 'judge'"),
        ({"main": agent(steps={"work": STEP | {"calls": {"agent": "x"}}})}, {}, "not in `agents`"),
        ({"main": agent(steps={"work": STEP | {"calls": {"agent": "main"}}})}, {}, "in a cycle"),
        ({"main": agent(steps={"work": STEP | {"rewrites": {"tail": 1}}})}, {}, "rewrites"),
        ({"main": agent(compaction_chances=[0.5])}, {}, "needs `agents.main.rewrites.compaction`"),
        ({"main": agent(num_turns=None)}, {}, "never reaches `end`"),
        (
            {
                "main": agent(
                    num_turns=None, steps={"work": STEP | {"next": {"work": 1e6, "end": 1}}}
                )
            },
            {},
            "after 1,000,00. turns on average",
        ),
        (
            {
                "main": agent(
                    num_turns=None, steps={"work": STEP | {"next": {"work": 1e300, "end": 1}}}
                )
            },
            {},
            "after inf turns on average",
        ),
        (
            {"main": agent(dependence=independent(human_share=[0.1, 0.2, 0.3]))},
            {},
            "agents.main.dependence.human_share",
        ),
        ({"main": agent(roles={"": {"prompt_tokens": 1, "heads": []}})}, {}, "heads"),
        (
            {"main": agent(roles={"": {"prompt_tokens": 1, "heads": [{"weight": math.inf}]}})},
            {},
            "heads. has weights with an infinite sum",
        ),
        ({"main": agent(steps={"work": STEP | {"next": {"work": math.inf}}})}, {}, "infinite"),
        ({"main": agent(steps={"end": STEP}, first={"end": 1})}, {}, "is reserved for"),
        ({"main": agent()}, {"answer_s_per_token": math.inf}, "answer_s_per_token"),
    ],
)
def test_invalid_set_refused_with_its_field(
    agents: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        parameters_of(agents, **fields)


class TestFiles:
    def test_set_read_from_toml_file(self, tmp_path: Path) -> None:
        path = tmp_path / "own.toml"
        path.write_text(
            'schema = "holdfast.generator/1"\nabout = "mine"\n[agents.main]\nnum_turns = 2\n'
            "first = { work = 1 }\nroles.me = { prompt_tokens = 64 }\n[agents.main.steps.work]\n"
            'role = "me"\noutput_tokens = 3\nnext = { work = 1 }\n'
        )
        (session,) = sessions_of(load_set(path), 1)
        assert [turn.agent for turn in session.turns] == ["me", "me"]

    def test_unknown_name_error_lists_known_sets(self) -> None:
        with pytest.raises(ConfigError, match="unknown parameter set") as caught:
            load_set("claude")
        assert all(name in (caught.value.hint or "") for name in set_names())

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"{", "own.json"),
            (b'{"schema": "holdfast.generator/2"}', "schema"),
            (b'{"schema": "holdfast.generator/1", "about": "", "agents": {}, "x": 1}', "`x`"),
            (b"\xff\xfe", "own.json"),
            (b'{"schema": "holdfast.generator/1", "about": "", "agents": {"main": 3}}', "agents"),
        ],
    )
    def test_malformed_file_error_names_the_file(
        self, tmp_path: Path, content: bytes, said: str
    ) -> None:
        path = tmp_path / "own.json"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=said) as caught:
            load_set(path)
        assert "own.json" in str(caught.value)

    def test_missing_file_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            load_set(tmp_path / "none.json")

    @pytest.mark.parametrize(
        "content", [b"{}", b'{"schema": "holdfast.study/1"}', b"[]", b'{"schema": "x"}', b""]
    )
    def test_file_without_study_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "study.json"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"study\.json"):
            fit_study(path)

    def test_study_without_profiles_says_what_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "study.json"
        path.write_bytes(b'{"schema": "holdfast.study/1"}')
        with pytest.raises(ConfigError, match="no `profiles`"):
            fit_study(path)

    @given(damage=damages(load_set("codex")))
    @example(damage=(("agents", "main", "num_turns"), 0))
    def test_damaged_set_refused_or_generates(self, damage: Damage) -> None:
        content = damaged(load_set("codex"), damage)
        try:
            parameters = _loaded(content)
        except HoldfastError:
            return
        assert sessions_of(parameters, 1)


def _loaded(content: Any) -> Parameters:
    try:
        return parameters_of(content["agents"], percents=content["percents"])
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


class TestFit:
    def test_fit_reproduces_constant_sessions(self) -> None:
        parameters = parameters_of(
            {
                "main": agent(
                    num_turns=12,
                    roles={"": {"prompt_tokens": 400, "head_tokens": 200}},
                    steps={"work": STEP | {"tool": "Bash", "gap_s": 3, "added_tokens": 40}},
                )
            }
        )
        found = sessions_of(parameters, 5)
        stepper, meter = Stepper(), ProfilesMeter()
        for session in found:
            meter.add((stepper.follow(session),))
        again = sessions_of(fitted(meter.result(), "again"), 5)
        assert [session.turns for session in again] == [session.turns for session in found]

    def test_fit_derives_compaction_chances_by_size(self) -> None:
        stepper, meter = Stepper(), ProfilesMeter()
        meter.add((stepper.follow(sessions_of(parameters_of({"main": agent()}), 1)[0]),))
        (measured,) = meter.result().values()
        nothing = distribution_of([])
        profile = msgspec.structs.replace(
            measured,
            rewrites={"compaction": RewriteProfile(*[nothing] * 5)},
            num_growth_phases_by_size=(100, 90, 80, 32),
            num_compactions_by_size=(0, 1, 8, 0),
        )
        chances = fitted({"main": profile}, "").agents["main"].compaction_chances
        assert chances == pytest.approx((0.0, 1 / 90, 0.1, 0.0), abs=1e-3)

    @given(damage=damages(STUDY))
    @example(damage=(("profiles", "main", "num_turns", "percentiles"), []))
    @example(damage=(("profiles", "main", "num_climbs_by_size"), "zeros"))
    @example(damage=(("profiles", "main", "num_climbs_by_size"), []))
    @example(damage=(("profiles", "main", "sessions"), []))
    @example(damage=(("profiles", "main", "block_tokens"), 0))
    def test_damaged_study_refused_or_generates(self, damage: Damage) -> None:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(msgspec.json.encode(damaged(STUDY, damage)))
            file.flush()
            try:
                parameters = fit_study(Path(file.name))
            except HoldfastError as error:
                assert file.name in str(error)
                return
        assert sessions_of(parameters, 1)

    def test_rare_agent_names_removed(self) -> None:
        labels = load_set("claude-code-tools").agents["sub_agent"].labels
        assert labels[""] > 0
        assert min(num for label, num in labels.items() if label) >= 5

    def test_study_without_main_agents_refused(self) -> None:
        with pytest.raises(ConfigError, match="no main agents"):
            fitted({}, "nothing")


@pytest.mark.parametrize("num_turns", [0, [0, 0], [0, 0.4]])
@pytest.mark.parametrize("dependence", [None, independent(call_share=(0.1, 0.9))])
def test_sessions_have_at_least_one_turn(num_turns: Any, dependence: Any) -> None:
    parameters = parameters_of({"main": agent(num_turns=num_turns, dependence=dependence)})
    assert [len(session.turns) for session in sessions_of(parameters, 3)] == [1, 1, 1]


@pytest.mark.parametrize("sessions", [[], [traits([0, 0, 0, 0, 1])], [traits(), traits()]])
def test_invalid_ranks_refused(sessions: list[Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="each rank from 0 exactly once for `"):
        parameters_of({"main": agent(dependence=independent(sessions=sessions))})


def test_nan_levels_refused() -> None:
    sessions = [traits(levels=[0.0, float("nan"), 0.0])]
    with pytest.raises(msgspec.ValidationError, match="a finite level of `output_tokens`"):
        parameters_of({"main": agent(dependence=independent(sessions=sessions))})


@pytest.mark.parametrize("name", set_names())
def test_set_text_reads_back_equal(tmp_path: Path, name: str) -> None:
    path = tmp_path / "again.json"
    path.write_text(set_text(load_set(name)))
    assert load_set(path) == load_set(name)


def test_set_text_keeps_strings() -> None:
    agents = {"main": agent(labels={"[1,  2]": 1})}
    text = set_text(parameters_of(agents, about="[\n1,\n2]", percents=[0, 50, 100]))
    assert '"[1,  2]": 1' in text
    assert '"about": "[\\n1,\\n2]"' in text
    assert '"percents": [0.0, 50.0, 100.0]' in text


def test_documented_set_generates_sessions(tmp_path: Path) -> None:
    document = Path(__file__).parents[3] / "docs" / "generator.md"
    (example,) = re.findall(r"```toml\n(.*?)```", document.read_text(), re.DOTALL)
    path = tmp_path / "example.toml"
    path.write_text(example)
    tools = {
        turn.tool_name for session in sessions_of(load_set(path), 20) for turn in session.turns
    }
    assert tools == {"Read", None}
    assert all(f"`{name}`" in document.read_text() for name in set_names())
