"""Compacted sessions over HTTP, through `holdfast serve` and its settings."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine_client import EngineClient
from tests.vllm.compaction.world import KV_TOKENS, NEXT, NUM_KEPT, PROMPT, Reference
from tests.waiting import LONGEST_S, until

from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]


@pytest.fixture(scope="module")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("served")
    options = EngineOptions(
        model=model,
        kv_tokens=KV_TOKENS,
        max_model_len=KV_TOKENS,
        config=HoldfastConfig(strict=True, compact_dir=str(directory / "compacted")),
    )
    with EngineServer("holdfast", options, directory / "log") as server:
        yield EngineClient(server)


def _ask(client: EngineClient, prompt: list[int], **more: Any) -> dict[str, Any]:
    body = {
        "model": str(client.server.options.model),
        "prompt": prompt,
        "max_tokens": 24,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    return client.post("/v1/completions", {**body, **more})


def test_compacted_by_request_and_said_in_the_answer(
    client: EngineClient, reference: Reference
) -> None:
    # The engine is idle afterwards, and compacts nevertheless.
    _ask(client, PROMPT, kv_transfer_params={"holdfast": {"compact": True}})
    folder = Path(str(client.server.options.config.compact_dir))
    until(lambda: [*folder.rglob("*.safetensors")])
    client.server.reset_prefix_cache()
    found = _ask(client, PROMPT + NEXT)
    session = reference.compacted(PROMPT, NUM_KEPT)
    assert found["choices"][0]["token_ids"] == session.answer(NEXT, max_tokens=24)
    assert found["usage"]["prompt_tokens"] == 340
    assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == 192
    told = found["kv_transfer_params"]["holdfast"]["compaction"]
    assert told["dropped_tokens"] == 128
    totals = client.totals_with("holdfast_compacted_away_tokens_total")
    assert totals["holdfast_compacted_away_tokens_total"] == 128
    assert totals["holdfast_compacted_prompts_total"] == 1


def test_nothing_of_it_failed(client: EngineClient) -> None:
    with urllib.request.urlopen(client.server.url + "/metrics", timeout=LONGEST_S) as page:
        text: str = page.read().decode()
    assert "holdfast_fallbacks_total{" not in text
    assert 'holdfast_compactions_total{outcome="lost"} 0.0' in text
