"""`holdfast top`: one frame, JSON, and the live screen by Textual's own pilot."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.bench.engine_watch import EngineWatch
from holdfast.cli.main import cli
from holdfast.cli.top_app import TopApp
from holdfast.core.engine_view import EngineView
from holdfast.errors import ConfigError, EndpointError

TOKEN = "a token of the tests"
METRICS = """# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0"}} 1
# TYPE holdfast_policy_info gauge
holdfast_policy_info{{policy="holdfast"}} 1
# TYPE holdfast_sessions gauge
holdfast_sessions{{state="at_tool"}} 4
# TYPE holdfast_cached_tokens counter
holdfast_cached_tokens_total {cached}
# TYPE holdfast_missed_tokens counter
holdfast_missed_tokens_total{{reason="evicted"}} {evicted}
"""
STATE = {
    "engines": [
        {
            "engine": {"capacity_blocks": 100, "free_blocks": 75, "reserved_blocks": 10, "new": 1},
            "sessions": [
                {
                    "number": 7,
                    "session_id": "[red]agent",
                    "state": "at_tool",
                    "context_blocks": 50,
                    "resident_blocks": 25,
                    "waits_for": {"kind": "shell", "tool": "Bash", "idle_s": 2, "expected_s": 30},
                    "added_later": [1],
                },
                {
                    "number": 8,
                    "state": "waiting",
                    "context_blocks": 20,
                    "starts_after": {
                        "reason": "blocks",
                        "waited_s": 4.0,
                        "needed_blocks": 1200,
                        "free_blocks": 7,
                    },
                },
                {
                    "number": 9,
                    "state": "waiting",
                    "context_blocks": 90,
                    "starts_after": {"reason": "tenant", "waited_s": 1.5, "first_session": 7},
                },
                {"number": 10, "state": "waiting", "starts_after": {"reason": "of a later one"}},
            ],
            "next_after": None,
        }
    ]
}


class Engine:
    """Serves `/metrics`, counting on with each reading, and the control routes."""

    def __init__(self) -> None:
        engine = self
        self.num_read = 0
        self.is_down = False
        self.status = 200

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    engine.num_read += 1
                    cached, evicted = 30 * engine.num_read, 70 * engine.num_read
                    self._send(200, METRICS.format(cached=cached, evicted=evicted))
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._send(401, "{}")
                else:
                    self._send(engine.status, json.dumps(STATE))

            def _send(self, status: int, text: str) -> None:
                self.send_response(503 if engine.is_down else status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    served = Engine()
    yield served
    served.close()


def top(*arguments: str) -> Result:
    arguments = ("top", "--interval", "0.2", *arguments)
    return CliRunner(env={"HOLDFAST_ROUTES_TOKEN": ""}).invoke(cli, arguments)


def test_a_pipe_gets_one_frame_of_the_interval(engine: Engine, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    output = top(engine.url, "--once", "--token-file", str(token)).output
    assert "30.0%" in output and "100%" in output  # 30 of 100 tokens hit, all could have
    assert "evicted 100%" in output and "25%" in output and "10%" in output
    assert "[red]agent" in output and "Bash: idle 2.0 s, expected in 30.0 s" in output


def test_a_waiting_turn_says_why(engine: Engine, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    output = top(engine.url, "--once", "--token-file", str(token)).output
    rows = [line for line in output.splitlines() if "#" in line]
    assert "4.0 s: needs 1,200 KV blocks, 7 are free" in rows[0]  # waits longest, so first
    assert "1.5 s: after [red]agent: its tenant was served less" in rows[1]
    assert "its start: 0 blocks are missing" in rows[2]


def test_json_has_each_engine_and_the_total(engine: Engine) -> None:
    gone = "http://127.0.0.1:9"
    found = json.loads(top(engine.url, gone, "--json").output)
    up, down = found["engines"]
    assert up["sessions"] == {"at_tool": 4} and up["hit_ratio"] == pytest.approx(0.3)
    assert down["error"] and down["url"] == gone
    assert found["total"]["hit_ratio"] == pytest.approx(0.3) and found["schema"] == "holdfast.top/1"


def test_without_a_token_it_says_how_to_list_sessions(engine: Engine) -> None:
    output = top(engine.url, "--once").output
    assert "sessions are not listed: no token" in output and "--holdfast-token-file" in output


@pytest.mark.parametrize(("status", "why"), [(404, "has no routes"), (500, "answered 500")])
def test_routes_that_fail_leave_the_rest(engine: Engine, status: int, why: str) -> None:
    engine.status = status
    result = CliRunner(env={"HOLDFAST_ROUTES_TOKEN": TOKEN}).invoke(
        cli, ["top", "--interval", "0.2", "--once", engine.url]
    )
    assert why in result.output and "30.0%" in result.output


def test_a_refused_token_is_named(engine: Engine) -> None:
    environment = {"HOLDFAST_ROUTES_TOKEN": "another token than it is"}
    result = CliRunner(env=environment).invoke(cli, ["top", "--once", engine.url])
    assert "refuses the token" in result.output


def test_no_engine_at_all_is_an_error() -> None:
    assert isinstance(top("http://127.0.0.1:9", "--once").exception, EndpointError)
    error = top("127.0.0.1:8000", "--once").exception
    assert isinstance(error, ConfigError) and "no address of an engine" in str(error)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_keys_end_the_screen(engine: Engine, key: str) -> None:
    app = TopApp([EngineWatch(engine.url)], 60.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.press(key)
    assert app.return_code == 0 and not app.is_running


async def test_the_screen_fits_each_size(engine: Engine) -> None:
    app = TopApp([EngineWatch(engine.url, TOKEN)], 60.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        assert "policy" not in app.export_screenshot()
        await pilot.resize_terminal(160, 50)
        await pilot.pause()
        assert "policy" in app.export_screenshot()


async def test_an_engine_that_goes_away_comes_back(engine: Engine) -> None:
    watch = EngineWatch(engine.url)
    app = TopApp([watch], 60.0)

    async def look(is_down: bool) -> EngineView:
        engine.is_down = is_down
        app.look_now()
        await app.workers.wait_for_complete()
        return app.views[0]

    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        assert (await look(False)).hit_ratio == pytest.approx(0.3)
        gone = await look(True)
        await pilot.pause()
        assert "503" in gone.error and "down" in app.export_screenshot()
        back = await look(False)
        assert not back.error and back.interval_s == 0.0  # a new interval begins
        assert (await look(False)).interval_s > 0


async def test_pause_stops_looking(engine: Engine) -> None:
    app = TopApp([EngineWatch(engine.url)], 60.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.press("p")
        app.look_now()
        await app.workers.wait_for_complete()
        assert engine.num_read == 1
        await pilot.press("p")
        app.look_now()
        await app.workers.wait_for_complete()
        assert engine.num_read == 2
