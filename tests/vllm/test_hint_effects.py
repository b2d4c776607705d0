"""What hints change on vLLM's scheduler, and what is counted and logged of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.core.hints import CARRIER_KEY, DIALECTS

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

RETAIN = {"holdfast_retain_s": 600}


def outcomes(rig: Rig) -> dict[str, float]:
    """Hints counted, by field and outcome, without identities."""
    found = {k.removeprefix("holdfast_hints/"): v for k, v in rig.metrics.items()}
    return {k: v for k, v in found.items() if "/" in k and not k.startswith("holdfast_")}


def press(rig: Rig, prompts: str = "stuvwxyz", **options: Any) -> None:
    """Send sessions of four blocks each, one after another."""
    for number, letter in enumerate(prompts):
        rig.turn(f"press {number}", letter * 4, num_outputs=1, **options)


def test_retained_session_outlives_pressure(make_rig: RigMaker) -> None:
    for xargs, num_cached in ((None, 0), (RETAIN, 4)):
        rig = make_rig(16)
        rig.turn("kept", "abcd", num_outputs=1, xargs=xargs)
        press(rig)
        assert rig.num_cached("abcd") == num_cached


def test_retention_ends_at_its_time(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("kept", "abcd", num_outputs=1, xargs={"holdfast_retain_s": 3})
    rig.now_s += 10.0
    press(rig)
    assert rig.num_cached("abcd") == 0


def test_retention_changes_nothing_without_pressure(make_rig: RigMaker) -> None:
    computed = []
    for xargs in (None, RETAIN):
        rig = make_rig(100)
        first = rig.turn("1", "abcd", xargs=xargs)
        rig.turn("2", "xy", xargs=xargs)
        rig.turn("3", rig.following(first, "e"), xargs=xargs)
        computed.append((rig.num_computed_tokens, rig.now_s))
    assert computed[0] == computed[1]


def test_due_turn_takes_promised_blocks(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("kept", "abcd", num_outputs=1, xargs=RETAIN)
    rig.turn("large", "0123456789ABCDE", num_outputs=1)
    assert rig.requests["large"].is_finished()
    assert outcomes(rig)["retain_s/lapsed"] == 1


def test_promise_beyond_the_share_is_refused(make_rig: RigMaker) -> None:
    rig = make_rig(16, settings={"retain_share": 0.25})
    rig.turn("large", "abcdefgh", num_outputs=1, xargs=RETAIN)
    press(rig)
    assert rig.num_cached("abcdefgh") == 0
    assert outcomes(rig) == {"retain_s/accepted": 1, "retain_s/refused": 1}


def test_oldest_promise_lapses_when_a_tenant_comes(make_rig: RigMaker) -> None:
    rig = make_rig(40)
    for name in ("abcd", "efgh", "ijkl"):
        rig.turn(name, name, num_outputs=1, xargs=RETAIN, tenant="greedy")
    press(rig, "mnopqrstuvwxyz")
    assert [rig.num_cached(name) for name in ("abcd", "efgh", "ijkl")] == [0, 4, 4]
    assert outcomes(rig)["retain_s/lapsed"] == 1


def test_closed_session_is_not_retained(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("done", "abcd", num_outputs=1, xargs={**RETAIN, "holdfast_final": True})
    press(rig)
    assert rig.num_cached("abcd") == 0


def test_evict_command_frees_the_session_first(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("old", "abcd", num_outputs=1)
    rig.turn("done", "efgh", num_outputs=1, xargs={"holdfast_evict": True})
    press(rig, "st")
    assert rig.num_cached("abcd") == 4
    assert rig.num_cached("efgh") < 4
    assert outcomes(rig) == {"commands/accepted": 1, "commands/applied": 1}


def kv_hints(action: str, session_id: str) -> dict[str, Any]:
    actions = [{"action_type": action, "payload": {"session_id": session_id}}]
    return {"kv_transfer_params": {"kv_hints": {"protocol_version": "0.1", "actions": actions}}}


def test_command_reaches_another_session_of_the_tenant(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("old", "abcd", num_outputs=1, session_id="old", tenant="t")
    rig.turn("other", "efgh", num_outputs=1, session_id="other", tenant="t")
    rig.turn("control", "z", num_outputs=1, xargs=kv_hints("Evict", "other"), tenant="t")
    press(rig, "st", tenant="t")
    assert rig.num_cached("abcd") == 4
    assert rig.num_cached("efgh") < 4


def test_command_reaches_no_other_tenant(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("other", "efgh", num_outputs=1, session_id="other", tenant="t")
    rig.turn("control", "z", num_outputs=1, xargs=kv_hints("Evict", "other"), tenant="liar")
    assert outcomes(rig) == {"commands/accepted": 1, "commands/missing": 1}
    assert not rig.scheduler._runtime.hints.retention._first


def test_priority_orders_a_tenants_own_turns_only(make_rig: RigMaker) -> None:
    started = []
    for priority in (0, -9):
        rig = make_rig(16, max_num_seqs=1)
        rig.send("running", "abcdefgh", num_outputs=40, tenant="a")
        rig.step()
        for name, own in (("a1", 0), ("b1", 0), ("a2", priority)):
            xargs = {"holdfast_priority": own}
            rig.send(name, name[::-1] * 3, num_outputs=1, tenant=name[0], xargs=xargs)
        rig.finish()
        started.append(rig.started[1:])
    assert started == [["a1", "b1", "a2"], ["a2", "b1", "a1"]]


def test_false_gaps_are_not_believed_for_long(make_rig: RigMaker) -> None:
    rig = make_rig(100)
    request = rig.turn("0", "a", tenant="liar", xargs={"holdfast_expected_gap_s": 0.1})
    for number in range(1, 12):
        rig.now_s += 500.0
        prompt = rig.following(request, "b")
        xargs = {"holdfast_expected_gap_s": 0.1}
        request = rig.turn(str(number), prompt, tenant="liar", xargs=xargs)
    assert outcomes(rig)["expected_gap_s/distrusted"] > 0
    assert rig.sessions[0].expected_gap_s is None


def test_decision_log_has_what_was_asked_and_granted(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    rig = make_rig(16, settings={"decision_log": path})
    rig.turn("1", "abcd", num_outputs=1, xargs=RETAIN)
    rig.turn("2", "x", num_outputs=1, xargs={"holdfast_retain_s": "soon"})
    rig.scheduler.shutdown()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    hints = [record for record in records if record["event"] == "hint"]
    assert [(h["field"], h["outcome"]) for h in hints] == [
        ("retain_s", "accepted"),
        ("retain_s", "granted"),
        ("retain_s", "rejected"),
    ]
    assert hints[1]["asked"] == "600 s for 4 blocks"
    assert hints[2]["reason"] == "must be a number of seconds"


def test_disabled_hints_have_no_effect(make_rig: RigMaker) -> None:
    rig = make_rig(16, settings={"hints": 0})
    rig.turn("kept", "abcd", num_outputs=1, xargs=RETAIN)
    press(rig)
    assert rig.num_cached("abcd") == 0
    assert outcomes(rig) == {}


def test_reset_ends_all_promises(make_rig: RigMaker) -> None:
    rig = make_rig(16)
    rig.turn("kept", "abcd", num_outputs=1, xargs=RETAIN)
    assert rig.scheduler.reset_prefix_cache()
    assert not rig.scheduler._runtime.hints.retention._promises


# Prefetches need a tier.


@pytest.fixture
def offloading(loaded_engine: None) -> None:
    from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


@pytest.mark.usefixtures("offloading")
@pytest.mark.parametrize("is_asked", [False, True])
def test_asked_prefetch_loads_a_paused_session(make_rig: RigMaker, is_asked: bool) -> None:
    settings = {"retain_share": 0.9}
    rig = make_rig(30, host_blocks=64, host_policy="HostPolicy", settings=settings)
    rig.turn("1", "abcdefgh", xargs={"holdfast_prefetch": is_asked})
    rig.turn("2", "stuvwxyzABCDEFGHIJKLMN", xargs={"holdfast_final": True})
    assert rig.num_cached("abcdefgh") < 8
    rig.send("run", "k", num_outputs=200)
    for _ in range(100):
        rig.step()
    assert (rig.num_cached("abcdefgh") == 8) is is_asked
    rig.turn("3", "abcdefghi")
    assert ("used" in rig.prefetches or "hit" in rig.prefetches) is is_asked


# Hostile clients.

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**63, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\x00"),
    *("tool:Bash rm", "human", "0.1", "{", "[" * 3000, [], [[]], {}, {"type": "evict"}),
    [{"type": "evict", "block_start": -1}, {"type": "prefetch"}],
    [{"start": 3, "end": 1, "priority": 2**63, "duration": 1e300}],
    {"edits": [{"type": "evict"}] * 16, "protocol_version": "0.1", "ttl": "9h"},
    {"protocol_version": "0.1", "actions": [{"action_type": "pin", "payload": {"ttl": 1e9}}]},
    {"protocol_version": "0.1", "actions": [{"action_type": "Evict", "payload": {"session": "1"}}]},
)


def test_hostile_hints_never_fail_a_request(make_rig: RigMaker) -> None:
    source = random.Random(7)
    keys = [key for dialect in DIALECTS for key, _, _ in dialect.keys if key]
    unders = [dialect.under for dialect in DIALECTS if dialect.under]
    rig = make_rig(24)

    def some(num: int) -> dict[str, Any]:
        return {source.choice([*keys, *unders]): source.choice(VALUES) for _ in range(num)}

    for number in range(150):
        nested = {under: some(3) for under in source.sample(unders, 3)}
        xargs = {**some(6), "kv_transfer_params": {**some(4), **nested}}
        if number % 2:
            xargs[CARRIER_KEY] = json.dumps({**some(4), **nested})
        prompt = source.choice("abcdef") * source.randint(1, 6)
        tenant = source.choice(("", "t", "u"))
        rig.send(str(number), prompt, num_outputs=2, xargs=xargs, tenant=tenant)
        for _ in range(source.randint(0, 4)):
            rig.step()
        rig.now_s += source.choice((0.0, 1.0, 1e4))
        rig.check()
    rig.finish()
    outcomes_seen = {name.rpartition("/")[2] for name in rig.metrics if "_hints/" in name}
    assert {"accepted", "clipped", "rejected", "granted"} <= outcomes_seen
