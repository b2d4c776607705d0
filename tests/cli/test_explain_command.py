"""`holdfast explain` over logs and engines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast.cli.main import cli
from holdfast.errors import HoldfastError

LINES = [
    {"event": "engine_started", "time_s": 0.0, "version": "1", "policy": "holdfast"},
    {
        "event": "missed",
        "time_s": 2.0,
        "engine": 0,
        "pid": 1,
        "session": 3,
        "turn": 2,
        "session_id": "agent",
        "cache_tokens": 1000,
        "prompt_tokens": 900,
        "cached_tokens": 30,
        "missed": {"evicted": 850, "never_seen": 20},
        "lost_s": {"evicted": 1.25},
        "evicted": {"reason": "tool", "ago_s": 3.0, "idle_s": 1.0, "taken_by": 4},
    },
]
METRICS = """# TYPE holdfast_cached_tokens counter
holdfast_cached_tokens_total 30
# TYPE holdfast_missed_tokens counter
holdfast_missed_tokens_total{reason="evicted"} 850
holdfast_missed_tokens_total{reason="never_seen"} 20
# TYPE holdfast_lost_seconds counter
holdfast_lost_seconds_total{reason="evicted"} 1.25
"""


def log(path: Path, end: str = "") -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES) + end)
    return str(path)


def explained(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["explain", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_thrashing_log_gets_verdict_cause_and_remedy(tmp_path: Path) -> None:
    text = explained(log(tmp_path / "log"))
    assert text.startswith("The cache thrashes: 3.3% of prompt tokens were cached")
    assert "1. evicted:tool: The blocks were evicted while the session was at a tool." in text
    assert "--kv-offloading-size" in text
    assert "session 3 (agent): 3.3% cached in 1 turns, 1.2 s lost" in text


def test_json_has_the_figures(tmp_path: Path) -> None:
    found = json.loads(explained(log(tmp_path / "log"), "--json"))
    assert found["causes"][0]["lost_s"] == 1.25
    assert found["cached_tokens"] + sum(found["missed"].values()) == found["prompt_tokens"]


def test_a_line_that_is_being_written_is_ignored(tmp_path: Path) -> None:
    assert explained(log(tmp_path / "log", '{"event": "mis')).startswith("The cache thrashes")


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    source = log(tmp_path / "log", "nothing\n")
    with pytest.raises(HoldfastError, match="line 3"):
        explained(source)


def test_an_engine_is_explained_by_its_sums() -> None:
    with served(METRICS) as url:
        text = explained(url)
    assert text.startswith("The cache thrashes: 3.3% of prompt tokens were cached")
    assert "1.2 s" in text


def test_an_engine_without_attribution_is_refused() -> None:
    with served("") as url, pytest.raises(HoldfastError, match="holdfast_missed_tokens_total"):
        explained(url)


def test_sessions_of_an_engine_need_its_log() -> None:
    with pytest.raises(HoldfastError, match="decision log"):
        explained("http://127.0.0.1:1", "--session", "1")


@contextmanager
def served(page: str) -> Iterator[str]:
    """An address whose every page is this one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
