"""A server process: its arguments, its errors, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import LONGEST_S, until

from holdfast.bench.server import EngineOptions, EngineServer
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
    """Runs a script instead of the engine."""

    script = ""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script, str(self.port)]


def _scripted(script: str, log_path: Path, start_timeout_s: float = LONGEST_S) -> _Scripted:
    server = _Scripted("holdfast", _OPTIONS, log_path, start_timeout_s=start_timeout_s)
    server.script = script
    return server


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # killed; its new parent has yet to read its status


def test_server_that_ends_early_raises_with_end_of_log(tmp_path: Path) -> None:
    server = _scripted("print('the reason'); raise SystemExit(3)", tmp_path / "log")
    with pytest.raises(EngineError, match=r"(?s)status 3.*the reason"), server:
        pass


def test_engine_core_error_comes_first(tmp_path: Path) -> None:
    core = "(EngineCore pid=7) ERROR 11-22 [core.py:1]"
    lines = [f"{core}     raise ValueError(", f"{core} ValueError: too long", *["more"] * 50]
    script = f"print(*{lines!r}, sep=chr(10)); raise SystemExit(1)"
    server = _scripted(script, tmp_path / "log")
    with pytest.raises(EngineError, match="before it answered: ValueError: too long; the end"):
        server.start()


def test_taken_port_is_named_in_the_hint(tmp_path: Path) -> None:
    script = "print('OSError: [Errno 98] Address already in use'); raise SystemExit(1)"
    server = _scripted(script, tmp_path / "log")
    with pytest.raises(EngineError) as failed:
        server.start()
    assert f"took port {server.port}" in str(failed.value.hint)


def test_taken_port_is_replaced_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.bench.server._STOP_TIMEOUT_S", 0.5)
    server = _scripted("", tmp_path / "log")
    taken_port = server.port
    taken = f"if sys.argv[1] == '{taken_port}': sys.exit('Address already in use')"
    server.script = f"import sys\n{taken}\n{_STUBBORN}"
    with server:
        assert server.port != taken_port
        server.check_running()


def test_servers_use_equal_cores_with_and_without_tiers(tmp_path: Path) -> None:
    name = "VLLM_CPU_NUM_OF_RESERVED_CPU"
    server = EngineServer("holdfast", _OPTIONS, tmp_path / "log")
    assert server.environment({})[name] == "1"
    assert server.environment({name: "3"})[name] == "3"


def test_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    server = _scripted("import time; time.sleep(600)", tmp_path / "log", start_timeout_s=0.5)
    with pytest.raises(EngineError, match="did not answer within"), server:
        pass
    assert not server.is_running


def test_server_that_ignores_sigterm_is_killed_with_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.bench.server._STOP_TIMEOUT_S", 0.5)
    with _scripted(_STUBBORN, tmp_path / "log"):
        child_pid = int((tmp_path / "log").read_text())
        assert _is_alive(child_pid)
    until(lambda: not _is_alive(child_pid))


def test_server_that_has_died_is_noticed(tmp_path: Path) -> None:
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


def test_cache_includes_vllms_own_block() -> None:
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


def test_settings_reach_only_holdfast(tmp_path: Path) -> None:
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


@pytest.mark.engine
@pytest.mark.server
def test_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
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
    until(lambda: not _members(group_id))


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
