"""`holdfast compress` on a tiny model: table, sentence, files, and errors before work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.bench.model import build_tiny_model
from holdfast.cli.main import cli
from holdfast.compress.methods import method_names
from holdfast.errors import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["compress", *map(str, arguments)], catch_exceptions=False)


def test_methods_lists_all_with_settings() -> None:
    output = _run("methods").output
    assert all(name in output for name in method_names())
    assert "num_sinks" in output


def test_eval_prints_a_table_and_writes_files(model: Path, tmp_path: Path) -> None:
    result = _run(
        *("eval", model, "--methods", "snapkv:window=8:kernel=3,random", "--budgets", "20,50"),
        *("--tasks", "single,table", "--contexts", "2", "--tokens", "260", "--threads", "1"),
        *("--json", tmp_path / "out.json", "--html", tmp_path / "out.html"),
    )
    assert result.exit_code == 0, result.output
    assert "At 20 % of the cache you lose" in result.output
    assert "At 50 % of the cache you lose" in result.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["schema"] == "holdfast.eviction/1"
    assert document["manifest"]["arguments"]["num_tokens"] == 260
    assert len(document["summaries"]) == 5
    assert len(document["outcomes"]) == 5 * (2 * 1 + 2 * 2)
    assert set(document["certified_shares"]) == {"snapkv:window=8:kernel=3", "random"}
    page = (tmp_path / "out.html").read_text()
    assert "<svg" in page and "snapkv:window=8:kernel=3" in page


def test_eval_takes_recorded_sessions(model: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]
    path = tmp_path / "sessions.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    result = _run(
        *("eval", model, "--sessions", path, "--methods", "streaming-llm", "--budgets", "50"),
        *("--threads", "1"),
    )
    assert result.exit_code == 0, result.output
    assert "with streaming-llm, the best of 1 methods" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budgets", "0"), "'0' is no percentage above 0"),
        (("--budgets", "20,forty"), "'forty' is no percentage"),
        (("--budgets", "nan"), "'nan' is no percentage"),
        (("--methods", "snap"), "no eviction method is called 'snap'"),
        (("--tasks", "needles"), "no task is called 'needles'"),
        (("--tokens", "64", "--tasks", "table"), "facts of task 'table' alone are longer"),
        (("--sessions", "none.jsonl"), "none.jsonl: cannot be read"),
    ],
)
def test_wrong_options_name_what_is_wrong(
    model: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _run("eval", model, *options)
    assert message in str(caught.value)
