"""Hints in all dialects, good and bad."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.hints import DIALECTS, HINT_FIELDS, CacheCommand, Hints
from holdfast.core.hints import parse_hints as parse_with_notes
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.turn_end import TurnEnd

BAD_RATIOS: tuple[object, ...] = (-0.1, "nan", "inf", True, "half", [])


def parse_hints(*sources: Any) -> tuple[Hints, tuple[str, ...]]:
    """The hints of a request, and those that were rejected with the reason."""
    hints, notes = parse_with_notes(*sources)
    return hints, tuple(str(note) for note in notes if note.outcome == "rejected")


def test_request_without_hints_has_none() -> None:
    assert parse_hints(None, None) == (Hints(), ())


def test_flat_keys_are_read() -> None:
    hints, rejected = parse_hints(
        {
            "holdfast_session_id": "s",
            "holdfast_parent_session_id": "p",
            "holdfast_agent_id": "a",
            "holdfast_turn_end": "tool:Bash",
            "holdfast_final": "true",
            "holdfast_expected_gap_s": "1.5",
            "holdfast_retain_s": 60,
        },
        None,
    )
    end = TurnEnd("tool", (ToolCall("Bash"),))
    assert (hints, rejected) == (Hints("s", "p", "a", end, True, 1.5, 60.0), ())


@pytest.mark.parametrize(
    ("sent", "ratio", "outcome"),
    [
        ("0.25", 0.25, "accepted"),
        (1, 1.0, "accepted"),
        (7, 1.0, "clipped"),
        *((bad, None, "rejected") for bad in BAD_RATIOS),
    ],
)
def test_share_that_another_engine_has(sent: object, ratio: float | None, outcome: str) -> None:
    hints, notes = parse_with_notes({"holdfast_elsewhere_ratio": sent}, None)
    assert hints.elsewhere_ratio == ratio
    assert [(note.field, note.outcome) for note in notes] == [("elsewhere_ratio", outcome)]


def test_changes_of_prompts_are_known_kinds() -> None:
    hints, _ = parse_with_notes({"holdfast_prompt_change": "date"}, None)
    assert hints.prompt_change == "date"
    for bad in ("dates", "", 3, ["date"], dict[str, str]()):
        hints, notes = parse_with_notes({"holdfast_prompt_change": bad}, None)
        assert hints.prompt_change is None
        assert [(note.field, note.outcome) for note in notes] == [("prompt_change", "rejected")]


def test_end_of_the_fixed_prefix_is_read() -> None:
    hints, notes = parse_hints({"holdfast_fixed_prefix_tokens": "4096"}, None)
    assert hints.fixed_prefix_tokens == 4096
    assert notes == ()
    bad: object
    for bad in (-1, 1.5, "many", 1e300, [], True):
        hints, notes = parse_hints({"holdfast_fixed_prefix_tokens": bad}, None)
        assert hints.fixed_prefix_tokens is None
        assert len(notes) == 1


def test_shell_command_may_follow_the_tool_name() -> None:
    hints, _ = parse_hints({"holdfast_turn_end": "tool:Bash git status &"}, None)
    arguments = '{"command": "git status", "run_in_background": true}'
    assert hints.turn_end == TurnEnd("tool", (ToolCall("Bash", arguments),))
    hints, _ = parse_hints({"holdfast_turn_end": "tool:Bash " + "x" * 100_000}, None)
    assert hints.turn_end is not None
    assert len(hints.turn_end.calls[0].arguments) < 2000


def test_nested_keys_are_read() -> None:
    hints, rejected = parse_hints(
        None, {"holdfast": {"session_id": "s", "turn_end": "human", "final": True}}
    )
    assert (hints, rejected) == (Hints("s", turn_end=TurnEnd("human"), is_final=True), ())


@pytest.mark.parametrize(
    ("xargs", "params", "expected"),
    [
        ({"session_id": "s"}, None, Hints("s")),
        ({"agentic_context": '{"program_id": "s"}'}, None, Hints("s")),
        (None, {"agent_hint": {"trajectory_id": "s"}}, Hints("s")),
        (
            None,
            {"agent_hint": {"session_id": "s", "cache_control": {"ttl": "5m"}}},
            Hints("s", retain_s=300.0),
        ),
        (
            None,
            {"agent_hints": {"session_id": "s", "agent_id": "a", "cache_ttl_ms": 2500}},
            Hints("s", agent_id="a", retain_s=2.5),
        ),
        (
            None,
            {"agent_context": {"trajectory_id": "s", "trajectory_final": True}},
            Hints("s", is_final=True),
        ),
    ],
)
def test_other_dialects_are_read(
    xargs: dict[str, Any] | None, params: dict[str, Any] | None, expected: Hints
) -> None:
    assert parse_hints(xargs, params) == (expected, ())


def test_own_session_id_precedes_the_engines() -> None:
    assert parse_hints({"session_id": "b", "holdfast_session_id": "a"}, None)[0].session_id == "a"


@pytest.mark.parametrize("key", ["session_id", "parent_session_id", "agent_id"])
def test_ids_of_any_length_stay_different_and_short(key: str) -> None:
    long = "x" * 1_000_000
    given = (long, long + "y", 12345678901234567890123456789012345678, "é" * 257, "x" * 256, 7)
    read = [parse_hints({f"holdfast_{key}": value}, None) for value in given]
    assert all(not rejected for _, rejected in read)
    ids = [getattr(hints, key) for hints, _ in read]
    assert len(set(ids)) == len(ids)
    assert all(len(one) <= 256 for one in ids)
    assert ids[4:] == ["x" * 256, "7"]


def test_ids_of_different_schemas_are_not_mixed() -> None:
    hints, _ = parse_hints(
        {"session_id": "s"}, {"agent_hint": {"session_id": "t", "parent_session_id": "p"}}
    )
    assert hints == Hints("s")


def test_later_dialect_fills_missing_hints() -> None:
    hints, _ = parse_hints({"session_id": "s"}, {"agent_hint": {"cache_control": {"ttl": 9}}})
    assert hints == Hints("s", retain_s=9.0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("holdfast_session_id", "", "must not be empty"),
        ("holdfast_session_id", "a\nb", "unprintable"),
        ("holdfast_session_id", ["a"], "must be a string"),
        ("holdfast_turn_end", "robot", 'must be "human"'),
        ("holdfast_turn_end", "tool:" + "x" * 200, "too long"),
        ("holdfast_final", "perhaps", "true or false"),
        ("holdfast_final", 7, "true or false"),
        ("holdfast_expected_gap_s", math.nan, "finite"),
        ("holdfast_expected_gap_s", math.inf, "finite"),
        ("holdfast_expected_gap_s", -1, "finite number >= 0"),
        ("holdfast_expected_gap_s", "soon", "number of seconds"),
        ("holdfast_expected_gap_s", True, "number of seconds"),
    ],
)
def test_bad_hint_is_left_out_and_reported(key: str, value: object, reason: str) -> None:
    hints, rejected = parse_hints({key: value}, None)
    assert hints == Hints()
    assert len(rejected) == 1
    assert rejected[0].startswith(f"vllm_xargs.{key}: ")
    assert reason in rejected[0]


def test_bad_hint_does_not_affect_the_others() -> None:
    hints, rejected = parse_hints({"holdfast_final": "x", "holdfast_session_id": "s"}, None)
    assert (hints, len(rejected)) == (Hints("s"), 1)


def test_dialect_that_is_not_an_object_is_rejected() -> None:
    assert parse_hints(None, {"holdfast": [1]}) == (
        Hints(),
        ("kv_transfer_params.holdfast: must be an object",),
    )


def test_unknown_keys_are_ignored() -> None:
    assert parse_hints({"temperature": 3, "x": object()}, {"do_remote_decode": 1}) == (Hints(), ())


@pytest.mark.parametrize("value", [1e30, 10**400])
def test_retain_time_is_limited(value: float) -> None:
    hints, _ = parse_hints({"holdfast_retain_s": value}, None)
    assert hints.retain_s == 7 * 86400.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = sorted(
    {part for d in DIALECTS for key, _, _ in d.keys for part in (key, *key.split("."))}
    | {d.under for d in DIALECTS}
    | {*HINT_FIELDS, "holdfast_body", "edits", "actions", "type", "action_type", "ttl", "payload"}
)
BODY = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)
PARAMS = st.dictionaries(st.sampled_from(KEYS), JSON | BODY, max_size=6)


@settings(deadline=None)
@given(st.none() | PARAMS, st.none() | PARAMS)
def test_any_hints_are_read_within_bounds(
    xargs: dict[str, Any] | None, params: dict[str, Any] | None
) -> None:
    hints, rejected = parse_hints(xargs, params)
    assert all(": " in reason for reason in rejected)
    for seconds in (hints.expected_gap_s, hints.retain_s):
        assert seconds is None or 0.0 <= seconds <= 7 * 86400.0
    for identity in (hints.session_id, hints.parent_session_id, hints.agent_id):
        assert identity is None or 0 < len(identity) <= 256


def test_copied_fields_are_read_from_both_carriers() -> None:
    text = '{"prompt_cache_retention": "24h"}'
    by_xargs, _ = parse_hints({"holdfast_body": text}, None)
    by_params, _ = parse_hints(None, {"holdfast": {"body": text}})
    assert by_xargs == by_params
    assert by_xargs.retain_s


PREFETCH = {"action_type": "Prefetch"}
ALIKE: dict[str, tuple[Hints, list[tuple[dict[str, Any] | None, dict[str, Any] | None]]]] = {
    "retention": (
        Hints(retain_s=60.0),
        [
            ({"holdfast_retain_s": 60}, None),
            (None, {"agent_hint": {"cache_control": {"ttl": 60}}}),
            ({"holdfast_body": '{"agent_hints": {"cache_ttl_ms": 60000}}'}, None),
            ({"retention_directives": [{"duration": 60}]}, None),
            ({"holdfast_body": '{"nvext": {"cache_control": {"ttl": "1m"}}}'}, None),
            (None, {"lmcache_retention_ttl_sec": 60}),
            ({"holdfast_body": '{"cache_control": {"ttl": "60s"}}'}, None),
            ({"holdfast_body": '{"prompt_cache_retention": "1m"}'}, None),
        ],
    ),
    "priority": (
        Hints(priority=-40),
        [
            ({"holdfast_priority": -40}, None),
            (None, {"agent_hint": {"kv_priority": 40}}),
            ({"retention_directives": [{"priority": 40}]}, None),
            ({"holdfast_body": '{"nvext": {"agent_hints": {"priority": 40}}}'}, None),
            ({"tokencake": '{"importance": 0.4}'}, None),
        ],
    ),
    "expected duration": (
        Hints(expected_gap_s=8.0),
        [
            ({"holdfast_expected_gap_s": "8"}, None),
            (None, {"agent_hints": {"expected_tool_duration_ms": 8000}}),
            ({"holdfast_body": '{"nvext": {"agent_hints": {"iat": 8000}}}'}, None),
            (None, {"cachewise_policy": {"hints": {"oracle": {"ground_truth_idle_s": 8}}}}),
        ],
    ),
    "next tool": (
        Hints(turn_end=TurnEnd("tool", (ToolCall("Bash", '{"command": "make"}'),))),
        [
            ({"holdfast_turn_end": "tool:Bash make"}, None),
            (
                None,
                {
                    "cachewise_policy": {
                        "hints": {"next_tool": {"name": "Bash", "args": {"command": "make"}}}
                    }
                },
            ),
        ],
    ),
    "session end": (
        Hints("s", is_final=True),
        [
            ({"holdfast_session_id": "s", "holdfast_final": 1}, None),
            (None, {"agent_context": {"session_id": "s", "trajectory_final": True}}),
            ({"job_id": "s", "is_last_step": "true"}, None),
        ],
    ),
    "parent": (
        Hints("s", "p"),
        [
            ({"holdfast_session_id": "s", "holdfast_parent_session_id": "p"}, None),
            ({"agentic_context": '{"program_id": "s", "parent_program_id": "p"}'}, None),
            (None, {"agent_hint": {"session_id": "s", "parent_session_id": "p"}}),
            (None, {"agent_hints": {"session_id": "s", "parent_session_id": "p"}}),
            (None, {"agent_context": {"trajectory_id": "s", "parent_trajectory_id": "p"}}),
        ],
    ),
    "agent": (
        Hints("s", agent_id="a"),
        [
            ({"holdfast_session_id": "s", "holdfast_agent_id": "a"}, None),
            ({"agentic_context": '{"program_id": "s", "agent_role": "a"}'}, None),
            (None, {"agent_hints": {"session_id": "s", "agent_id": "a"}}),
            ({"tokencake": '{"lifecycle_id": "s", "agent_type": "a"}'}, None),
        ],
    ),
    "prefetch": (
        Hints(commands=(CacheCommand("prefetch"),)),
        [
            ({"holdfast_prefetch": True}, None),
            (None, {"agent_hint": {"context_management": {"edits": [{"type": "prefetch"}]}}}),
            (None, {"kv_hints": {"protocol_version": "0.1", "actions": [PREFETCH]}}),
            ({"holdfast_body": '{"nvext": {"agent_hints": {"speculative_prefill": true}}}'}, None),
        ],
    ),
    "evict": (
        Hints(commands=(CacheCommand("evict"),)),
        [
            ({"holdfast_evict": 1}, None),
            (None, {"agent_hint": {"context_management": {"edits": [{"type": "offload"}]}}}),
            (
                None,
                {"kv_hint": {"protocol_version": "0.1", "actions": [{"action_type": "Demote"}]}},
            ),
            (None, {"cachewise_policy": {"scope": {"idle_session": True}}}),
        ],
    ),
}


@pytest.mark.parametrize(("expected", "sources"), ALIKE.values(), ids=ALIKE)
def test_dialects_say_the_same_of_a_hint(expected: Hints, sources: list[Any]) -> None:
    """So the effect of one, shown on a real server, is that of all."""
    assert [parse_hints(*source) for source in sources] == [(expected, ())] * len(sources)
