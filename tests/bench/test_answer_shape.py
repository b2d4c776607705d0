"""What two answers of one engine have in common."""

from __future__ import annotations

import json
from typing import Any

from answer_shape import first_difference, shape_of, tokens_of


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}


def usage(new: int, read: int, stored: int) -> dict[str, Any]:
    counts = {
        "input_tokens": new,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": stored,
    }
    return {"type": "message_delta", "usage": counts}


def test_deltas_cut_elsewhere_are_equal() -> None:
    assert shape_of(stream(delta("ab"), delta("c"))) == shape_of(stream(delta("abc")))


def test_deltas_of_another_text_differ() -> None:
    one, other = shape_of(stream(delta("abc"))), shape_of(stream(delta("abd")))
    assert first_difference(one, other).startswith("part 0 of 1 and 1: ")


def test_cached_prompt_tokens_make_no_difference() -> None:
    warm, cold = stream(usage(15, 96, 32)), stream(usage(143, 0, 0))
    assert shape_of(warm) == shape_of(cold)
    assert (tokens_of(warm), tokens_of(cold)) == ((143, 96), (143, 0))
    assert shape_of(stream(usage(16, 96, 32))) != shape_of(cold)
