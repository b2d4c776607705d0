"""Hundreds of random turns with forks, aborts, compaction and resets."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker
    from vllm.v1.request import Request

pytestmark = pytest.mark.engine

_NUM_TURNS = 300
_NUM_SESSIONS = 12
_XARGS: tuple[dict[str, Any], ...] = ({}, {}, {"holdfast_turn_end": "human"}, {"holdfast_final": 1})


class _Crowd:
    """Sessions that randomly take turns, fork, are compacted, abandoned and reset."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._rig = rig
        self._random = random.Random(seed)
        self._last: dict[int, Request] = {}
        self._num_sent = 0

    def run(self) -> None:
        while self._num_sent < _NUM_TURNS:
            self._act()
            self._step()
            if self._num_sent % 5 == 0:
                self._rig.check()
        self._rig.finish()

    def _act(self) -> None:
        chance = self._random.random()
        if chance < 0.5:
            self._send(self._random.randrange(_NUM_SESSIONS))
        elif chance < 0.55 and self._rig.requests:
            self._rig.abort(self._random.choice(list(self._rig.requests)))
        elif chance < 0.56:
            self._rig.scheduler.reset_prefix_cache(self._random.random() < 0.5)
        else:
            self._rig.now_s += self._random.expovariate(1.0)

    def _send(self, number: int) -> None:
        last = self._last.get(number)
        if last is not None and not last.is_finished():
            return
        self._num_sent += 1
        prompt = self._prompt(number, last)
        self._last[number] = self._rig.send(
            f"{number}/{self._num_sent}",
            prompt,
            num_outputs=self._random.choice((1, 5, 12, 17, 40)),
            session_id=f"s{number}" if number % 3 == 0 else None,
            xargs=self._random.choice(_XARGS) if number % 4 == 0 else None,
        )

    def _prompt(self, number: int, last: Request | None) -> list[bytes]:
        own = [f"{number}/{self._num_sent}/{i}".encode() for i in range(5)]
        fresh = [f"shared/{i}".encode() for i in range(3)] + own[: self._random.randrange(6)]
        if last is None or len(last.block_hashes) > 30:
            return fresh
        chance = self._random.random()
        if chance < 0.1:
            return fresh
        keys: list[bytes] = list(last.block_hashes)
        if chance < 0.3:  # a fork, or an edit
            other = self._last[self._random.choice(list(self._last))]
            keys = list(other.block_hashes)[: self._random.randrange(len(keys) + 1)]
        return keys + own[: self._random.randrange(4)]

    def _step(self) -> None:
        scheduler = self._rig.scheduler
        for _ in range(self._random.randrange(4)):
            is_starting = not scheduler.running and len(scheduler.waiting) > 0
            is_starting &= not self._rig.is_answer_due
            before = self._rig.num_computed_tokens
            self._rig.step()
            assert self._rig.num_computed_tokens > before or not is_starting


@pytest.mark.parametrize("is_ahead", [False, True], ids=["in step", "a step ahead"])
@pytest.mark.parametrize("num_blocks", [60, 200])
@pytest.mark.parametrize("seed", [1, 2])
def test_integrity_under_any_mix_of_turns(
    make_rig: RigMaker, seed: int, num_blocks: int, is_ahead: bool
) -> None:
    rig = make_rig(
        num_blocks, is_ahead=is_ahead, max_num_seqs=8, max_num_batched_tokens=256,
        settings={"max_sessions": 10},
    )  # fmt: skip
    _Crowd(rig, seed).run()
    answered = [r for r in rig.requests.values() if r.status.name == "FINISHED_LENGTH_CAPPED"]
    assert len(answered) > 200
    assert all(request.num_output_tokens == request.max_tokens for request in answered)
    assert rig.num_evicted > 0


def test_same_turns_give_the_same_decisions(make_rig: RigMaker) -> None:
    rigs = [make_rig(60, max_num_seqs=8) for _ in range(2)]
    for rig in rigs:
        _Crowd(rig, 3).run()
    assert rigs[0].started == rigs[1].started
    assert rigs[0].num_computed_tokens == rigs[1].num_computed_tokens
