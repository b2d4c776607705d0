"""Missing tokens are attributed on vLLM's own scheduler, to the last token."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.vllm.conftest import keys_of

from holdfast.core.content_marks import Origin
from holdfast.core.miss import Attribution, MissReason
from holdfast.core.offload_port import NoOffload

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

BLOCK_TOKENS = 16
PROMPTS = st.builds(
    lambda head, end: head + end,
    st.sampled_from(["a", "ab", "abcd", "abcdefgh", "x", "xyz"]),
    st.text(alphabet="mnopq", max_size=4),
)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), PROMPTS, st.integers(1, 40)),
        st.tuples(st.just("follow"), st.text(alphabet="mn", max_size=2), st.integers(1, 40)),
        st.tuples(st.just("abort"), st.just(""), st.integers(0, 5)),
        st.tuples(st.just("step"), st.just(""), st.integers(1, 12)),
        st.tuples(st.just("reset"), st.just(""), st.just(0)),
    ),
    max_size=25,
)


class Witness:
    """Collects attributions, and knows by itself which blocks were ever cached."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.found: dict[str, Attribution] = {}
        self.ever: set[bytes] = set()
        self.num_computed: dict[str, int] = {}  # leading blocks of a prompt, when it arrived
        self.num_started: dict[str, int] = {}  # and when it started
        self._report = rig.scheduler._reports.turn_ended
        rig.scheduler._reports.turn_ended = self._ended

    def send(self, request_id: str, prompt: str | list[bytes], num_outputs: int) -> Any:
        keys = keys_of(prompt) if isinstance(prompt, str) else prompt
        self.look()
        self.num_computed[request_id] = self.num_started[request_id] = self._num_ever(keys)
        return self.rig.send(request_id, keys, num_outputs=num_outputs)

    def look(self) -> None:
        pool = self.rig.scheduler.kv_cache_manager.block_pool
        self.ever |= {b.block_hash[:-4] for b in pool.blocks if b.block_hash is not None}

        for request_id, request in self.rig.requests.items():
            if request_id not in self.rig.started:
                self.num_started[request_id] = self._num_ever(request.block_hashes)

    def _num_ever(self, keys: Sequence[bytes]) -> int:
        missing = (n for n, key in enumerate(keys) if key not in self.ever)
        return next(missing, len(keys))

    def finish(self) -> None:
        while self.rig.scheduler.has_unfinished_requests():
            self.rig.step()
            self.look()

    def _ended(self, turn: Any, *more: Any) -> None:
        if turn.attribution is not None:
            self.found[turn.request_id] = turn.attribution
        self._report(turn, *more)

    def missed(self, request_id: str) -> dict[MissReason, int]:
        return dict(self.found[request_id].missed)


def check(witness: Witness) -> None:
    for request_id, found in witness.found.items():
        assert found.cached_tokens + sum(found.missed.values()) == found.prompt_tokens
        assert all(num > 0 for num in found.missed.values())
        cacheable = (found.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        least, most = (
            max(min(depths[request_id] * BLOCK_TOKENS, cacheable) - found.cached_tokens, 0)
            for depths in (witness.num_computed, witness.num_started)
        )
        assert least <= found.missed.get("evicted", 0) <= most, request_id


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(acts=ACTS, num_blocks=st.integers(16, 40))
def test_sums_are_exact_and_evictions_are_true(
    make_rig: RigMaker, acts: list[tuple[str, str, int]], num_blocks: int
) -> None:
    witness = Witness(make_rig(num_blocks, max_num_seqs=4))
    last: Any = None
    for number, (act, text, count) in enumerate(acts):
        request_id = str(number)
        if act == "send":
            last = witness.send(request_id, text, count)
        elif act == "follow" and last is not None and len(last.block_hashes) < 8:
            last = witness.send(request_id, witness.rig.following(last, text), count)
        elif act == "abort" and str(number - count) in witness.rig.requests:
            witness.rig.abort(str(number - count))
        elif act == "step":
            for _ in range(count):
                witness.rig.step()
                witness.look()
        elif act == "reset":
            witness.finish()
            witness.rig.scheduler.reset_prefix_cache()
            witness.ever.clear()
    witness.finish()
    check(witness)


# One reason each.


@pytest.fixture
def witness(make_rig: RigMaker) -> Witness:
    """An engine of twelve blocks."""
    return Witness(make_rig(12))


def press(witness: Witness) -> None:
    """Run sessions that fill the cache."""
    for number in range(3):
        witness.rig.turn(f"other {number}", f"{number}uvwxyz")


def test_a_prompt_that_only_grew_is_no_miss(witness: Witness) -> None:
    first = witness.rig.turn("1", "abcd", num_outputs=13)
    witness.rig.turn("2", witness.rig.following(first, "xy"), num_outputs=1)
    assert witness.missed("1") == {"never_seen": 68}
    # 81 tokens were seen: five blocks, and one more token.
    assert witness.missed("2") == {"below_block_size": 1, "never_seen": 35}


def test_the_last_token_of_an_answer_is_not_computed(rig: Rig) -> None:
    witness = Witness(rig)
    first = rig.turn("1", "abcd", num_outputs=12)
    rig.turn("2", rig.following(first, "x"))
    # The answer ends with its block, which lacks one token's KV, so the engine did not cache it.
    assert witness.missed("2") == {"below_block_size": 16, "never_seen": 20}


def test_an_equal_prompt_that_missed_was_evicted(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef")
    press(witness)
    witness.rig.turn("2", "abcdef")
    assert witness.missed("2") == {"evicted": 96, "below_block_size": 4}
    known = witness.found["2"].known
    assert known.mutated_at_tokens is None
    assert known.eviction is not None and known.eviction.reason == "tool"


def test_an_eviction_names_its_session_and_the_takers(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef")
    press(witness)
    witness.rig.turn("2", "abcdefg")
    eviction = witness.found["2"].known.eviction
    assert eviction is not None and eviction.idle_s is not None
    # The second of the others took the first block, which is evicted last.
    assert (eviction.session, eviction.taken_by) == (0, 2)
    assert eviction.idle_s > 2.0
    assert witness.found["2"].expected_s is not None


def test_time_lost_is_that_of_avoidable_tokens(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef")
    press(witness)
    witness.rig.turn("2", "abcdefg")
    assert set(witness.found["2"].lost_s) == {"evicted"}
    # The rig takes a millisecond a token.
    assert witness.found["2"].lost_s["evicted"] == pytest.approx(0.096, rel=0.2)


def test_a_changed_history_is_named_with_its_depth(rig: Rig) -> None:
    witness = Witness(rig)
    rig.turn("1", "abcdefgh", session_id="s")
    rig.turn("2", "abXdefghij", session_id="s")
    assert witness.missed("2") == {"mutated": 100, "never_seen": 32}
    known = witness.found["2"].known
    assert (known.mutated_at_tokens, known.against_turn) == (32, 1)


def test_an_answer_that_came_back_otherwise_is_named(rig: Rig) -> None:
    witness = Witness(rig)
    rig.turn("1", "abcd", num_outputs=44)
    rig.turn("2", "abcdwxyz")
    assert witness.missed("2") == {"below_block_size": 4, "answer_changed": 28, "never_seen": 36}


def test_a_prefix_that_no_turn_has_computed_is_named(rig: Rig) -> None:
    witness = Witness(rig)
    rig.send("1", "abcdefgh")
    rig.abort("1")
    rig.turn("2", "abcdefghi")
    assert witness.missed("2") == {
        "not_admitted": 128,
        "below_block_size": 4,
        "never_seen": 16,
    }


def test_a_prompt_of_whole_blocks_computes_its_last_again(rig: Rig) -> None:
    witness = Witness(rig)
    keys = keys_of("abcd")
    for number in "12":
        rig.hand_in(rig.engine.request(number, keys, 64, 8))
        rig.finish()
    assert witness.missed("2") == {"below_block_size": 16}


def test_a_history_that_comes_back_was_evicted(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef", session_id="s")
    witness.rig.turn("2", "abX", session_id="s")
    press(witness)
    witness.rig.turn("3", "abcdef", session_id="t")
    assert witness.missed("3")["evicted"] == 96


def test_blocks_evicted_beside_recomputed_ones_were_evicted(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef")
    witness.rig.turn("other", "uvwxyzmnopq")
    witness.rig.turn("2", "ab", session_id="t")
    witness.rig.turn("3", "abcdef")
    assert witness.missed("3")["evicted"] == 64


def tokens_of(rig: Rig, request_id: str, text: str, **more: Any) -> Any:
    """A request whose token ids and block keys are those of a text, a block a letter."""
    rig.scheduler.knows_tokens = True
    salt = more.get("salt", "")
    keys = [salt.encode() + key for key in keys_of(text)]
    request = rig.engine.request(request_id, keys, len(keys) * BLOCK_TOKENS + 4, 4)
    letters = [ord(letter) for letter in text for _ in range(BLOCK_TOKENS)]
    request.prompt_token_ids[: len(letters)] = letters
    request.cache_salt = salt or None
    request.lora_request = more.get("lora")
    rig.hand_in(request)
    rig.finish()
    return request


def test_a_salt_that_changed_is_named(rig: Rig) -> None:
    witness = Witness(rig)
    tokens_of(rig, "1", "abcdefgh")
    tokens_of(rig, "2", "abcdefgh", salt="s")
    assert witness.missed("2") == {"salt_changed": 125, "never_seen": 7}


def test_another_adapter_is_named(rig: Rig) -> None:
    witness = Witness(rig)
    tokens_of(rig, "1", "abcdefgh", salt="s")
    adapter = SimpleNamespace(lora_name="adapter")
    tokens_of(rig, "2", "ABCDEFGH", salt="s", lora=adapter)
    assert witness.missed("2") == {"never_seen": 132}
    rig.scheduler._runtime.misses._marks.note([ord(c) for c in "q" * 200], Origin(0, "", "s"))
    tokens_of(rig, "3", "qqqqqqqqqq", salt="s", lora=adapter)
    assert witness.missed("3")["other_model"] == 156


def test_a_reset_is_named(rig: Rig) -> None:
    witness = Witness(rig)
    tokens_of(rig, "1", "abcdefgh")
    assert rig.scheduler.reset_prefix_cache()
    tokens_of(rig, "2", "abcdefgh")
    assert witness.missed("2") == {"restart": 125, "never_seen": 7}


def test_what_another_engine_has_is_named(witness: Witness) -> None:
    hint = {"holdfast_elsewhere_ratio": "0.75"}
    witness.rig.turn("1", "abcdef", xargs=hint)
    assert witness.missed("1") == {"other_replica": 75, "never_seen": 25}
    press(witness)
    witness.rig.turn("2", "abcdef", xargs=hint)
    # What this engine has evicted counts first.
    assert witness.missed("2") == {"evicted": 96, "below_block_size": 4}


class FailedLoads(NoOffload):
    """A tier that has failed to load the first four blocks of every path."""

    def num_failed(self, hashes: Sequence[bytes], first: int) -> int:
        return max(min(len(hashes), 4) - first, 0)


def test_a_load_that_failed_is_named(witness: Witness) -> None:
    witness.rig.scheduler._runtime.tier = FailedLoads()
    witness.rig.turn("1", "abcdef")  # as after a restart, from a pool
    assert witness.missed("1") == {"tier_load_failed": 64, "never_seen": 36}
    press(witness)
    witness.rig.turn("2", "abcdef")
    assert witness.missed("2") == {"tier_load_failed": 64, "evicted": 32, "below_block_size": 4}


def test_what_is_counted_is_what_is_attributed(witness: Witness) -> None:
    witness.rig.turn("1", "abcdef")
    press(witness)
    witness.rig.turn("2", "abcdef")
    metrics = witness.rig.metrics
    prompts = sum(found.prompt_tokens for found in witness.found.values())
    missed = sum(n for name, n in metrics.items() if name.startswith("holdfast_missed_tokens/"))
    assert missed + metrics["holdfast_cached_tokens"] == prompts
    assert metrics["holdfast_missed_tokens/evicted"] == 96
    assert metrics["holdfast_lost_seconds/evicted"] > 0


def test_what_changed_is_counted_with_its_tokens(rig: Rig) -> None:
    witness = Witness(rig)
    named = {"holdfast_client": "pi", "holdfast_prompt_change": "git"}
    rig.turn("1", "abcdefgh", session_id="s", xargs=named)
    assert witness.found["1"].change is None  # nothing is missing that was there before
    rig.turn("2", "abXdefghij", session_id="s", xargs=named)
    assert (witness.found["2"].change, witness.missed("2")["mutated"]) == ("git", 100)
    assert _counted(rig, "holdfast_changed_prompt_tokens/mutated/git/") == 100
    lost_s = witness.found["2"].lost_s["mutated"]
    assert _counted(rig, "holdfast_changed_prompt_seconds/mutated/git/") == pytest.approx(lost_s)


def _counted(rig: Rig, name: str) -> float:
    """The sum of metrics whose names begin so."""
    return sum(value for key, value in rig.metrics.items() if key.startswith(name))
