"""A running engine as a planner sees it, from what its routes tell."""

from __future__ import annotations

import pytest

from holdfast.bench.engine_turns import ASSUMED_LINK_BYTES_PER_S, EngineTurns, measured_profile
from holdfast.core.seen_state import SeenCosts, SeenEngine, SeenMiss, SeenSession, SeenState
from holdfast.errors import ConfigError

ENGINE = SeenEngine(
    cache_tokens=10_000,
    block_tokens=16,
    kv_bytes_per_token=512.0,
    max_running=8,
    max_step_tokens=2048,
    costs=SeenCosts(1e-3, 2e-5, 3e-10, 4e-4),
)


def missed(turn: int, prompt: int, cached: int, **reasons: int) -> SeenMiss:
    return SeenMiss(turn, prompt, cached, reasons, output_tokens=10 * turn, gap_s=float(turn))


def watched(*sessions: SeenSession, engine: SeenEngine = ENGINE) -> EngineTurns:
    turns = EngineTurns("http://127.0.0.1:8000", "token")
    turns.take([SeenState(engine, list(sessions))])
    return turns


def test_evicted_tokens_count_as_kept() -> None:
    """An infinite cache would have had them; changed and new ones it would not."""
    turns = [
        missed(1, 900, 320, never_seen=580),
        missed(2, 1000, 16, evicted=900, never_seen=84),
        missed(3, 1200, 400, mutated=700, never_seen=100),
    ]
    seen = watched(SeenSession(number=4, state="at_tool", last_misses=turns[::-1]))
    sample = seen.sample()
    assert sample.prompt_tokens == "900 1000 1200" and sample.kept_tokens == "0 916 400"
    assert sample.gap_ms == "1000 2000 3000" and sample.output_tokens == "10 20 30"
    assert sample.shared_head_tokens == 320  # other sessions had computed the first one's head
    observed = seen.observed(0.0)
    assert observed.hit_ratio == pytest.approx(736 / 3100)
    assert observed.possible_hit_ratio == pytest.approx((320 + 916 + 400) / 3100)
    assert (observed.num_live, observed.num_turns) == (1, 3)


def test_a_watch_gathers_turns_once() -> None:
    seen = watched(SeenSession(number=1, last_misses=[missed(2, 20, 0), missed(1, 10, 0)]))
    later = SeenSession(number=1, last_misses=[missed(3, 30, 0)])
    other = SeenSession(number=2, last_misses=[missed(1, 7, 0)])
    seen.take([SeenState(ENGINE, [later, other])])
    sample = seen.sample()
    assert sample.session == "0 0 0 1" and sample.prompt_tokens == "10 20 30 7"


def test_a_watch_ends_in_time() -> None:
    now = [0.0]
    looks: list[int] = []
    seen = EngineTurns("http://127.0.0.1:9", "token")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.bench.engine_turns.read_states", lambda *_: [])
        seen.watch(5.0, looks.append, sleep, lambda: now[0])
        assert now[0] == 5.0 and len(looks) == 4
        seen.watch(0.0, looks.append, sleep, lambda: now[0])
    assert now[0] == 5.0 and len(looks) == 5


def test_the_profile_has_sizes_and_speed_of_the_engine() -> None:
    profile = measured_profile("http://10.0.0.1:8000", watched().engine)
    assert profile.name == "10.0.0.1:8000" and profile.kv_tokens == 10_000
    assert profile.step_time_s([(1, 500)] * 3) == pytest.approx(1e-3 + 3 * 4e-4)
    prefill_s = 1e-3 + 100 * 2e-5 + 100 * (200 + 50) * 3e-10
    assert profile.step_time_s([(100, 200)]) == pytest.approx(prefill_s)
    assert profile.host_link_bytes_per_s == ASSUMED_LINK_BYTES_PER_S


def test_copies_that_were_made_tell_the_links_speed() -> None:
    engine = SeenEngine(**{f: getattr(ENGINE, f) for f in ENGINE.__struct_fields__}
                        | {"host_load_s_per_token": 1e-6})  # fmt: skip
    assert measured_profile("http://e", engine).host_link_bytes_per_s == pytest.approx(512e6)


@pytest.mark.parametrize("engine", [SeenEngine(cache_tokens=9), SeenEngine(costs=SeenCosts())])
def test_an_engine_that_knows_no_costs_is_refused(engine: SeenEngine) -> None:
    with pytest.raises(ConfigError, match="has not told what its work takes"):
        _ = watched(engine=engine).engine
