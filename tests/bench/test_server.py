"""A server process: what it is started with, and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from holdfast.bench.model import build_tiny_model
from holdfast.bench.scrape import parse_metrics
from holdfast.bench.server import EngineOptions, EngineServer, ServedPolicy
from holdfast.config import HoldfastConfig
from holdfast.errors import EngineError

_OPTIONS = EngineOptions(model=Path("model"), kv_tokens=1000, max_model_len=512)

# Starts a child of its own, answers /health, and ignores SIGTERM: the worst server to stop.
_STUBBORN = """
import http.server, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class _Scripted(EngineServer):
    """Runs a script in place of the engine."""

    script = ""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script, str(self.port)]


def _scripted(script: str, log_path: Path, start_timeout_s: float = 60.0) -> _Scripted:
    server = _Scripted("holdfast", _OPTIONS, log_path, start_timeout_s=start_timeout_s)
    server.script = script
    return server


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # killed; whoever inherited it has yet to read its status


def test_a_server_that_ends_early_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = _scripted("print('the reason'); raise SystemExit(3)", tmp_path / "log")
    with pytest.raises(EngineError, match=r"(?s)status 3.*the reason"), server:
        pass


def test_why_the_engine_core_failed_comes_first(tmp_path: Path) -> None:
    core = "(EngineCore pid=7) ERROR 11-22 [core.py:1]"
    lines = [f"{core}     raise ValueError(", f"{core} ValueError: too long", *["more"] * 50]
    script = f"print(*{lines!r}, sep=chr(10)); raise SystemExit(1)"
    server = _scripted(script, tmp_path / "log")
    with pytest.raises(EngineError, match="before it answered: ValueError: too long; the end"):
        server.start()


def test_a_port_that_was_taken_is_said_to_be(tmp_path: Path) -> None:
    script = "print('OSError: [Errno 98] Address already in use'); raise SystemExit(1)"
    server = _scripted(script, tmp_path / "log")
    with pytest.raises(EngineError) as failed:
        server.start()
    assert f"has taken port {server.port}" in str(failed.value.hint)


def test_servers_compute_on_as_many_cores_with_tiers_as_without(tmp_path: Path) -> None:
    name = "VLLM_CPU_NUM_OF_RESERVED_CPU"
    server = EngineServer("holdfast", _OPTIONS, tmp_path / "log")
    assert server.environment({})[name] == "1"
    assert server.environment({name: "3"})[name] == "3"


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    server = _scripted("import time; time.sleep(600)", tmp_path / "log", start_timeout_s=0.5)
    with pytest.raises(EngineError, match="did not answer within"), server:
        pass
    assert not server.is_running


def test_a_stubborn_server_and_its_children_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.bench.server._STOP_TIMEOUT_S", 0.5)
    with _scripted(_STUBBORN, tmp_path / "log"):
        child_pid = int((tmp_path / "log").read_text())
        assert _is_alive(child_pid)
    deadline_s = time.monotonic() + 10
    while _is_alive(child_pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _is_alive(child_pid)


def test_a_server_that_has_died_is_noticed(tmp_path: Path) -> None:
    with _scripted(_STUBBORN, tmp_path / "log") as server:
        server.check_running()
        assert server._process is not None
        server._process.kill()
        server._process.wait()
        with pytest.raises(EngineError, match="died"):
            server.check_running()


def test_stopping_twice_does_nothing(tmp_path: Path) -> None:
    server = _scripted("", tmp_path / "log")
    server.stop()
    server.stop()


def test_the_cache_has_room_for_vllms_own_block() -> None:
    assert _OPTIONS.num_blocks == 33  # 1,000 tokens are 32 blocks of 32


def test_both_policies_get_the_same_engine(tmp_path: Path) -> None:
    commands: list[list[str]] = []
    for policy in ("vllm-default", "holdfast"):
        server = EngineServer(policy, _OPTIONS, tmp_path / "log")
        server.port = 1
        command = server.command()
        commands.append(command[command.index("model") :])
    stock, ours = commands
    at = stock.index("--scheduler-cls")
    assert stock[:at] + stock[at + 2 :] == ours


def test_our_settings_reach_only_holdfast(tmp_path: Path) -> None:
    options = EngineOptions(
        model=Path("m"), kv_tokens=64, max_model_len=64, config=HoldfastConfig(eviction="lru")
    )
    inherited = {"HOLDFAST_EVICTION": "lru", "HOLDFAST_METRICS_DIR": "/x", "HOME": "/h"}
    ours = EngineServer("holdfast", options, tmp_path / "log").environment(inherited)
    stock = EngineServer("vllm-default", options, tmp_path / "log").environment(inherited)
    assert ours["HOLDFAST_EVICTION"] == "lru"
    assert "HOLDFAST_EVICTION" not in stock
    assert "HOLDFAST_METRICS_DIR" not in ours
    assert ours["HOME"] == "/h"


def _post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


@pytest.fixture(scope="module", params=["vllm-default", "holdfast"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real server with a cache of 64 blocks."""
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("live")
    options = EngineOptions(
        model=build_tiny_model(directory / "model"), kv_tokens=2048, max_model_len=2048
    )
    policy: ServedPolicy = request.param
    with EngineServer(policy, options, directory / "log") as server:
        yield server


@pytest.mark.engine
@pytest.mark.server
def test_the_tiny_model_answers_chats_and_completions(live: EngineServer) -> None:
    model = str(live.options.model)
    chat = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert _post(live.url, "/v1/chat/completions", chat)["usage"]["completion_tokens"] > 0
    text = {"model": model, "prompt": "hello", "max_tokens": 4, "ignore_eos": True}
    assert _post(live.url, "/v1/completions", text)["usage"]["completion_tokens"] == 4


@pytest.mark.engine
@pytest.mark.server
def test_evictions_are_counted_beside_vllms_own_metrics(live: EngineServer) -> None:
    live.reset_prefix_cache()
    before = _totals(live)
    # Three prompts of 1,024 tokens in a cache of 2,048: the third takes the place of the first.
    for first_token in (100, 200, 300):
        prompt = [first_token] * 1024
        body = {"model": str(live.options.model), "prompt": prompt, "max_tokens": 1}
        _post(live.url, "/v1/completions", body)
    time.sleep(1.0)  # the engine core publishes a few times a second
    after = _totals(live)
    gained = after["holdfast_evicted_blocks_total"] - before["holdfast_evicted_blocks_total"]
    assert 31 <= gained <= 36
    assert after["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"] == 3072


def _totals(server: EngineServer) -> dict[str, float]:
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as response:
        return dict(parse_metrics(response.read().decode()).totals)


@pytest.mark.engine
@pytest.mark.server
def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    script = (
        "import sys, time; from pathlib import Path\n"
        "from holdfast.bench.model import build_tiny_model\n"
        "from holdfast.bench.server import EngineOptions, EngineServer\n"
        "model = build_tiny_model(Path(sys.argv[1]) / 'model')\n"
        "options = EngineOptions(model=model, kv_tokens=1024, max_model_len=1024)\n"
        "server = EngineServer('vllm-default', options, Path(sys.argv[1]) / 'log')\n"
        "server.start()\n"
        "print(server._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        group_id = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 60
    while _members(group_id) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert _members(group_id) == []


def _members(group_id: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _is_alive(int(entry.name)):
            try:
                if os.getpgid(int(entry.name)) == group_id:
                    members.append(int(entry.name))
            except ProcessLookupError:
                continue
    return members
