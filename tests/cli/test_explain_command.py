"""`holdfast explain` over logs and engines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from holdfast.bearer_token import TOKEN_VARIABLE
from holdfast.bench.turn_records import append_turns
from holdfast.cli.main import cli
from holdfast.core.results import TurnRecord
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


def test_a_remedy_of_several_causes_stands_once(tmp_path: Path) -> None:
    path = Path(log(tmp_path / "log"))
    human = LINES[1] | {"session": 4, "evicted": {"reason": "human", "ago_s": 1.0}}
    with path.open("a") as file:
        file.write(json.dumps(human | {"waited_s": 2.0, "delayed_by": "blocks"}) + "\n")
    text = explained(str(path))
    assert text.count("--kv-offloading-size") == 1 and text.count("as above") == 2
    assert "A host tier is made for pauses" in text and "holdfast plan LOG" in text


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


def replayed(path: Path, **changed: object) -> str:
    """Records of two turns: 900 tokens that were sent before, 64 of them cached; 100 new."""
    turns = [
        TurnRecord("a", 0, 0.0, 0.5, 1.0, 1000, 1000, 1000, 9, cached_tokens=0),
        TurnRecord("a", 1, 2.0, 2.5, 3.0, 1100, 100, 100, 9, cached_tokens=64),
        TurnRecord("b", 0, 2.0, 2.5, 3.0, 1100, 1100, 100, 9, cached_tokens=992),
        TurnRecord("b", 1, 4.0, None, None, 1100, 100, 100, 0, error_kind="stalled"),
    ]
    append_turns(path, "stock", [msgspec.structs.replace(one, **changed) for one in turns])
    return str(path)


def test_a_replays_records_are_explained(tmp_path: Path) -> None:
    found = json.loads(explained(replayed(tmp_path / "records.jsonl"), "--json"))
    assert found["num_turns"] == 3 and found["cached_tokens"] == 1056
    assert found["missed"] == {"never_seen": 1200, "evicted": 936, "below_block_size": 8}
    assert found["verdict"].startswith("The cache thrashes")
    assert found["sessions"][0]["session_id"] == "stock/a"
    one = explained(str(tmp_path / "records.jsonl"), "--session", "stock/a")
    assert "2 turns" in one and "1. evicted" in one


def test_records_without_cached_tokens_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match=r"line 1.*cached_tokens.*unknown") as error:
        explained(replayed(tmp_path / "records.jsonl", cached_tokens=None))
    assert "--enable-prompt-tokens-details" in str(error.value.hint)


def test_an_engine_is_explained_by_its_sums() -> None:
    with served(METRICS) as url:
        text = explained(url)
    assert text.startswith("The cache thrashes: 3.3% of prompt tokens were cached")
    assert "1.2 s" in text


def test_an_engine_without_attribution_is_refused() -> None:
    with served("") as url, pytest.raises(HoldfastError, match="holdfast_missed_tokens_total"):
        explained(url)


def test_sessions_of_an_engine_need_its_routes_or_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(HoldfastError, match="control routes, or a decision log"):
        explained("http://127.0.0.1:1", "--session", "1")


STATE = {
    "engines": [
        {
            "engine": {"engine": 0, "cache_tokens": 1000, "block_tokens": 10},
            "sessions": [
                {
                    "number": 3,
                    "session_id": "agent",
                    "state": "waiting",
                    "context_blocks": 120,
                    "starts_after": {"reason": "blocks", "waited_s": 2.0},
                    "last_misses": [
                        {
                            "turn": 2,
                            "prompt_tokens": 900,
                            "cached_tokens": 30,
                            "missed": {"evicted": 850, "never_seen": 20},
                            "lost_s_by": {"evicted": 1.25},
                            "evicted": {"reason": "tool", "ago_s": 3.0, "taken_by": 4},
                            "waited_s": 7.5,
                            "delayed_by": "tenant",
                        }
                    ],
                }
            ],
            "next_after": None,
        }
    ]
}


def test_a_token_adds_an_engines_sessions_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with served(METRICS, json.dumps(STATE)) as url:
        text = explained(url)
        of_one = explained(url, "--session", "agent")
    assert "The live sessions need 1,200 tokens at once, and the KV cache holds 1,000." in text
    assert "session 3 (agent)" in text and "evicted (tool) for session 4, 3.0 s ago" in text
    assert "tenant 1 7.5 s" in text and "wait now, by reason: 1 blocks" in text
    assert of_one.startswith("The cache thrashes: 3.3%") and "1 turns, 900 prompt" in of_one


def test_a_refused_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "another")
    with served(METRICS, None) as url, pytest.raises(HoldfastError, match="refuses the token"):
        explained(url)


@contextmanager
def served(page: str, sessions: str | None = "{}") -> Iterator[str]:
    """An address with these metrics and sessions; without sessions it refuses the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = page if self.path == "/metrics" else sessions
            self.send_response(401 if content is None else 200)
            self.end_headers()
            self.wfile.write((content or "").encode())

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
