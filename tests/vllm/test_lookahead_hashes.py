"""Prefix hashes that cover tokens after their block, as vLLM 0.33 makes them for EAGLE and MTP.

The hash of an answer's last full block covers the next prompt's first tokens after it, so it may
change between two turns.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker
    from vllm.v1.request import Request

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

BLOCK = 16


def hasher_with(lookahead: int) -> Any:
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

    if "num_hash_lookahead_tokens" not in inspect.signature(get_request_block_hasher).parameters:
        pytest.skip("this vLLM has no look-ahead hashes")
    init_none_hash(sha256)
    return get_request_block_hasher(BLOCK, sha256, lookahead)


def run_turn(
    rig: Rig, number: int, tokens: Sequence[int], hasher: Any, num_outputs: int
) -> Request:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    request = Request(
        request_id=str(number),
        prompt_token_ids=list(tokens),
        sampling_params=SamplingParams(max_tokens=num_outputs, ignore_eos=True, temperature=0.0),
        pooling_params=None,
        arrival_time=0.0,
        block_hasher=hasher,
    )
    rig.hand_in(request)
    rig.finish()
    rig.now_s += 1.0
    return request


@pytest.mark.parametrize("lookahead", [1, 3])
@pytest.mark.parametrize("num_outputs", range(20, 20 + BLOCK, 3))
@pytest.mark.parametrize("num_dropped", [0, 1, 2])
def test_session_continues_whatever_follows_its_answer(
    make_rig: RigMaker, lookahead: int, num_outputs: int, num_dropped: int
) -> None:
    rig = make_rig(60)
    hasher = hasher_with(lookahead)
    tokens = list(range(3, 73))
    num_repeated = 0
    for number in range(4):
        before = rig.num_computed_tokens
        request = run_turn(rig, number, tokens, hasher, num_outputs)
        computed = rig.num_computed_tokens - before - (num_outputs - 1)
        assert len(tokens) - computed >= (num_repeated - lookahead) // BLOCK * BLOCK - BLOCK
        answer = list(request.output_token_ids)
        tokens += answer[: num_outputs - num_dropped]
        num_repeated = len(tokens)
        tokens += range(200 + number, 230 + number)  # the client's next message
    assert [session.num_turns for session in rig.sessions] == [4]
    rig.check()
    # Blocks of answers that no prompt repeats are superseded.
    known = sum(len(run.hashes) for run in rig.scheduler._runtime.tree.root.subtree())
    assert known <= len(request.block_hashes)


def test_integrity_after_evictions_and_aborts(make_rig: RigMaker) -> None:
    rig = make_rig(24)
    hasher = hasher_with(3)
    prompts = {letter: [ord(letter)] * 40 for letter in "abcd"}
    for number in range(24):
        letter = "abcd"[number % 4]
        request = run_turn(rig, number, prompts[letter], hasher, 5 + number)
        prompts[letter] += [*request.output_token_ids, number]
        if len(prompts[letter]) > 240:
            prompts[letter] = prompts[letter][:40]
        rig.check()
    assert rig.num_computed_tokens > 0
