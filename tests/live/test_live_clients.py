"""Real clients from npm against `holdfast serve` on the CPU, and through the gateway before two.

Not among `make test`: each client is a download of about 100 MB. `make explore` runs them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.real_engines import GatewayProcess, RealEngine, real_engine, started
from tests.live.clients import CLAUDE_CODE, CODEX, npm_command, run_client
from tests.waiting import until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.live, pytest.mark.server]

_ROOT = Path(__file__).parents[2]
_TASK = "Look at the directory, then say whether all is well."
_PLACED = re.compile(r'holdfast_gateway_placements_total\{engine="[^"]+",reason="(\w+)"\} (\d+)')
_FAULTS = re.compile(r"holdfast_gateway_(?:broken_answers|retries|disconnects)_total\S* (\d+)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a client talks to.

    Attributes:
        url: Its address.
        logs: Decision logs of the engines, and how long they were before the client came.
        gateway: Before the engines, if it is one.
    """

    url: str
    logs: dict[Path, int]
    gateway: GatewayProcess | None

    def turns(self, client: str) -> list[dict[str, Any]]:
        """Turns of a client's sessions that have ended, with the engine and what it knew."""
        found = []
        for path, start in self.logs.items():
            events = [json.loads(line) for line in path.read_bytes()[start:].splitlines()]
            ended = {event["request"] for event in events if event["event"] == "turn_ended"}
            for event in events:
                if event["event"] == "turn_arrived" and event["request"] in ended:
                    found.append({**event, "engine": path.name})
        return [t for t in found if t["client"] == client and not t["is_side_call"]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, RealEngine]]:
    """Two engines, by their decision logs."""
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("live")
    model = build_tiny_model(directory / "model")
    logs = [directory / f"decisions-{number}.jsonl" for number in range(2)]
    found = [real_engine("holdfast", _options(model, log), log.with_suffix(".log")) for log in logs]
    with started(found):
        yield dict(zip(logs, found, strict=True))


def _options(model: Path, log: Path) -> EngineOptions:
    return EngineOptions(
        model=model,
        kv_tokens=300_000,
        max_model_len=131_072,
        config=HoldfastConfig(strict=True, decision_log=str(log)),
        environ={
            "LIVE_TEST_MODEL": str(model),
            "PYTHONPATH": os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", ""))),
        },
        extra_arguments=(
            *("--served-model-name", "scripted"),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
            "--middleware=tests.live.scripted_answers.ScriptedAnswers",
        ),
    )


@pytest.fixture(params=["one engine", "gateway"])
def endpoint(request: pytest.FixtureRequest, engines: dict[Path, RealEngine]) -> Iterator[Endpoint]:
    logs = {path: path.stat().st_size if path.exists() else 0 for path in engines}
    if request.param == "gateway":
        with GatewayProcess(list(engines.values())) as gateway:
            yield Endpoint(gateway.url, logs, gateway)
    else:
        path, engine = next(iter(engines.items()))
        yield Endpoint(engine.server.url, {path: logs[path]}, None)


@pytest.fixture(scope="module")
def codex(tmp_path_factory: pytest.TempPathFactory) -> str:
    return npm_command(CODEX, "codex", tmp_path_factory.mktemp("codex"))


@pytest.fixture(scope="module")
def claude_code(tmp_path_factory: pytest.TempPathFactory) -> str:
    return npm_command(CLAUDE_CODE, "claude", tmp_path_factory.mktemp("claude"))


def check_one_session(endpoint: Endpoint, client: str) -> None:
    """A call of a tool and the answer after it are two turns of one named session of an engine."""
    turns = until(lambda: _two(endpoint.turns(client)))
    assert len({(turn["engine"], turn["session"], turn["session_id"]) for turn in turns}) == 1
    assert all(turn["session_id"] for turn in turns)
    if endpoint.gateway is not None:
        metrics = endpoint.gateway.metrics()
        placed = Counter({reason: int(n) for reason, n in _PLACED.findall(metrics)})
        assert placed["origin"] >= len(turns) - 1, placed
        assert not placed["moved"], placed
        assert not any(map(int, _FAULTS.findall(metrics))), metrics


def _two(turns: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return turns if len(turns) >= 2 else ()


def test_codex_runs_as_one_session(endpoint: Endpoint, codex: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'model = "scripted"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{endpoint.url}/v1"\nwire_api = "responses"\n'
    )
    arguments = [codex, "exec", "--skip-git-repo-check", "-s", "danger-full-access", _TASK]
    assert "All is well" in run_client(arguments, tmp_path, CODEX_HOME=str(tmp_path))
    check_one_session(endpoint, "Codex CLI")


def test_claude_code_runs_as_one_session(
    endpoint: Endpoint, claude_code: str, tmp_path: Path
) -> None:
    environ = {
        "ANTHROPIC_BASE_URL": endpoint.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "scripted",
        "ANTHROPIC_SMALL_FAST_MODEL": "scripted",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    arguments = [claude_code, "-p", _TASK, "--allowed-tools", "Bash"]
    assert "All is well" in run_client(arguments, tmp_path, **environ)
    check_one_session(endpoint, "Claude Code")
