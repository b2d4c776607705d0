"""`holdfast serve` and the command line around it; vLLM is replaced."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import holdfast.vllm.offload.arguments as tiers
import holdfast.vllm.serve as engine
from holdfast.cli.main import EXIT_REFUSED, cli, main
from holdfast.config import HoldfastConfig, settings
from holdfast.errors import ConfigError, EngineError, PolicyError
from holdfast.vllm.offload.host_memory import Bound


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments that vLLM would have been started with."""
    calls: list[list[str]] = []
    monkeypatch.setattr(engine, "serve_vllm", lambda arguments: calls.append(list(arguments)))
    # CliRunner does not undo what a command writes into the environment.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return calls


def test_every_vllm_argument_reaches_vllm_in_order(served: list[list[str]]) -> None:
    given = ["some/model", "-tp", "2", "--port=8001", "--max-model-len", "-1", "--no-enable-x"]
    result = CliRunner().invoke(cli, ["serve", *given])
    assert result.exit_code == 0, result.output
    middleware = [f"--middleware={name}" for name in engine.MIDDLEWARE]
    ours = ["--scheduler-cls", engine.SCHEDULER_CLASS, *middleware]
    assert served == [[*given, *ours]]


def test_holdfast_option_is_removed_at_any_position(
    served: list[list[str]], tmp_path: Path
) -> None:
    config = tmp_path / "holdfast.toml"
    config.write_text("[holdfast]\nmax_sessions = 7\n", encoding="utf-8")
    given = ["serve", "m", "--port", "1", "--holdfast-config", str(config), "--seed", "2"]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 0, result.output
    assert served[0][:5] == ["m", "--port", "1", "--seed", "2"]
    assert os.environ["HOLDFAST_MAX_SESSIONS"] == "7"


def test_a_token_turns_the_routes_on(served: list[list[str]], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a token of the tests")
    result = CliRunner().invoke(cli, ["serve", "m", "--holdfast-token-file", str(token)])
    assert result.exit_code == 0, result.output
    assert served[0][-1] == f"--middleware={engine.ROUTES_MIDDLEWARE}"
    assert os.environ["HOLDFAST_ROUTES_TOKEN_FILE"] == str(token)


def test_an_unusable_token_refused_before_engine_start(
    served: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_ROUTES_TOKEN", "short")
    result = CliRunner().invoke(cli, ["serve", "m"])
    assert isinstance(result.exception, ConfigError) and served == []


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("belady", "unknown policy"), ("clairvoyant", "future"), ("stateless", "keeps no KV blocks")],
)
def test_simulation_only_policy_refused_before_engine_start(
    served: list[list[str]], tmp_path: Path, policy: str, expected: str
) -> None:
    path = tmp_path / "holdfast.toml"
    path.write_text(f'[holdfast]\npolicy = "{policy}"\n', encoding="utf-8")
    result = CliRunner().invoke(cli, ["serve", "m", "--holdfast-config", str(path)])
    assert isinstance(result.exception, PolicyError)
    assert expected in str(result.exception)
    assert served == []


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "--help"], ["serve", "-h"]])
def test_help_is_holdfasts_and_points_to_vllms(
    served: list[list[str]], arguments: list[str]
) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0
    assert "--help=all" in result.output
    assert served == []


def test_help_lists_settings_with_variable_default_range(
    served: list[list[str]],
) -> None:
    page = " ".join(CliRunner().invoke(cli, ["serve", "--help"], terminal_width=200).output.split())
    for field in dataclasses.fields(HoldfastConfig):
        assert f" {field.name} " in page
        assert f" HOLDFAST_{field.name.upper()}, " in page
    assert "HOLDFAST_MAX_WAIT_RATIO, a number from 0.1 to 100.0; default: 2.0" in page
    assert "HOLDFAST_EVICTION, 'policy' or 'lru'; default: policy" in page
    assert "HOLDFAST_HOST_GIB, a number above 0; default: not set" in page
    assert "HOLDFAST_PREFETCH, true or false; default: true" in page
    assert "HOLDFAST_DEBUG" in page


def test_every_setting_is_described() -> None:
    for setting in settings():
        assert setting.description.endswith("."), setting.name


def test_vllms_own_help_is_available(served: list[list[str]]) -> None:
    CliRunner().invoke(cli, ["serve", "--help=all"])
    assert served[0][0] == "--help=all"


@pytest.mark.parametrize("flag", ["--scheduler-cls", "--scheduler_cls", "--scheduler-cls=a.B"])
def test_scheduler_of_the_user_is_a_conflict(flag: str) -> None:
    with pytest.raises(ConfigError, match="conflicts"):
        engine.holdfast_arguments(["model", flag])


class _Command:
    """Stands for vLLM's `serve`."""

    def __init__(self) -> None:
        self.timeouts_s: list[int] = []

    def subparser_init(self, subparsers: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = subparsers.add_parser("serve")
        parser.add_argument("model")
        parser.add_argument("--scheduler-cls")
        parser.add_argument("--shutdown-timeout", type=int, default=0)
        parser.add_argument("--middleware", action="append")
        return parser

    def validate(self, _parsed: argparse.Namespace) -> None:
        pass

    def cmd(self, parsed: argparse.Namespace) -> None:
        self.timeouts_s.append(parsed.shutdown_timeout)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> _Command:
    command = _Command()

    def with_defaults(defaults: dict[str, object]) -> tuple[argparse.ArgumentParser, _Command]:
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers()
        command.subparser_init(subparsers).set_defaults(**defaults)
        return parser, command

    monkeypatch.setattr(engine, "engine_version", lambda: "0.32.0")
    monkeypatch.setattr(engine, "_parser_and_command", with_defaults)
    return command


def test_engine_gets_time_to_save_by_default(command: _Command) -> None:
    engine.serve_vllm(engine.holdfast_arguments(["m"]))
    engine.serve_vllm(engine.holdfast_arguments(["m", "--shutdown-timeout", "30"]))
    engine.serve_vllm(engine.holdfast_arguments(["m", "--shutdown-timeout=0"]))
    engine.serve_vllm(["m"])  # stock, as measured against
    assert command.timeouts_s == [engine._SHUTDOWN_TIMEOUT_S, 30, 0, 0]


def test_serving_without_a_prefix_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves Holdfast no cache"):
        engine.holdfast_arguments(["model", "--no-enable-prefix-caching"])


Start = Callable[..., Result]


@pytest.fixture
def start(served: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Starts the server with settings, on a vLLM that has tiers."""
    monkeypatch.setattr(tiers, "engine_version", lambda: "0.32.1")

    def run(*arguments: str, **settings: object) -> Result:
        config = tmp_path / "holdfast.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        config.write_text("\n".join(["[holdfast]", *lines]), encoding="utf-8")
        given = ["serve", "m", *arguments, "--holdfast-config", str(config)]
        return CliRunner().invoke(cli, given)

    return run


def _after(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_tiers_become_vllm_arguments(start: Start, served: list[list[str]], tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    result = start(host_gib=0.001, pool_dir=str(pool), pool_gib=0.5, pool_ttl_s=60)
    assert result.exit_code == 0, result.output
    config = json.loads(_after(served[0], "--kv-transfer-config"))
    extra = config["kv_connector_extra_config"]
    assert extra["cpu_bytes_to_use"] == int(0.001 * (1 << 30))
    assert extra["offload_prompt_only"] is False
    (tier,) = extra["secondary_tiers"]
    assert (tier["pool_bytes"], tier["ttl_s"]) == (1 << 29, 60.0)
    assert tier["pool_dir"] == str(pool)
    assert (pool / "holdfast-pool.json").exists()
    assert _after(served[0], "--prefix-caching-hash-algo") == "sha256_cbor"


def test_host_tier_alone_needs_no_pool_and_no_hashes(start: Start, served: list[list[str]]) -> None:
    start(host_gib=0.001)
    config = json.loads(_after(served[0], "--kv-transfer-config"))
    assert config["kv_connector_extra_config"]["secondary_tiers"] == []
    assert "--prefix-caching-hash-algo" not in served[0]


def test_no_tier_arguments_without_tiers(start: Start, served: list[list[str]]) -> None:
    start()
    assert not any("transfer" in argument or "hash" in argument for argument in served[0])


def test_hash_algorithm_of_the_user_is_kept(
    start: Start, served: list[list[str]], tmp_path: Path
) -> None:
    start("--prefix-caching-hash-algo", "sha256", host_gib=0.001, pool_dir=str(tmp_path / "pool"))
    assert served[0].count("--prefix-caching-hash-algo") == 1


@pytest.mark.parametrize(
    "flag",
    ["--kv-transfer-config={}", "--kv_transfer_config", "--kv-transfer-config.kv_role=kv_both",
     "--kv-offloading-size"],
)  # fmt: skip
def test_tiers_of_the_user_are_a_conflict(start: Start, served: list[list[str]], flag: str) -> None:
    result = start(flag, host_gib=0.001)
    assert isinstance(result.exception, ConfigError)
    assert "conflicts with host_gib" in str(result.exception)
    assert start(flag).exit_code == 0
    assert len(served) == 1


def test_vllm_without_tiers_refused_only_for_tiers(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "engine_version", lambda: "0.28.0")
    result = start(host_gib=0.001)
    assert isinstance(result.exception, EngineError)
    assert str(result.exception) == "host_gib needs vLLM 0.32 or newer, this is 0.28.0"
    assert start().exit_code == 0


def test_more_host_memory_than_shared_memory_is_refused(
    start: Start, served: list[list[str]]
) -> None:
    result = start(host_gib=1e9)
    assert isinstance(result.exception, ConfigError)
    assert "GiB free" in str(result.exception)
    assert served == []


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the machine's free memory (GiB)."""

    def set_free(free_gib: float) -> None:
        bound = Bound("the machine", int(free_gib * (1 << 30)), "lower host_gib")
        monkeypatch.setattr(tiers, "memory_bounds", lambda: iter([bound]))

    return set_free


@pytest.mark.parametrize(
    ("arguments", "needed_gib"),
    [
        ([], 1 + 1.5),
        (["-tp", "4"], 1 + 3),
        (["-tp=2", "--pipeline_parallel_size", "2"], 1 + 3),
        (["--data-parallel-size=2"], 2 + 2.5),
        (["-dp", "8", "--data-parallel-size-local", "2"], 2 + 2.5),
    ],
)
def test_host_memory_counts_per_engine_with_engine_use(
    start: Start,
    free: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    needed_gib: float,
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(tiers, "shared_memory_bound", lambda: iter(()))
    free(needed_gib)
    assert start(*arguments, host_gib=1).exit_code == 0
    free(needed_gib - 0.1)
    result = start(*arguments, host_gib=1)
    assert isinstance(result.exception, ConfigError)
    assert f"{needed_gib - 0.1:.1f} GiB free" in str(result.exception)


def test_cache_of_cpu_build_counts_too(
    start: Start, free: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    free(6)
    assert isinstance(start(host_gib=1).exception, ConfigError)
    assert start(host_gib=0.25).exit_code == 0


def test_invalid_vllm_arguments_are_left_to_vllm(start: Start) -> None:
    assert start("-tp", "two", host_gib=0.001).exit_code == 0


def test_pool_larger_than_disk_is_refused_with_figures(
    start: Start, served: list[list[str]], tmp_path: Path
) -> None:
    result = start(host_gib=0.001, pool_dir=str(tmp_path / "pool"), pool_gib=1e9)
    assert isinstance(result.exception, ConfigError)
    assert "pool_gib is 1e+09" in str(result.exception) and "GiB free" in str(result.exception)
    assert served == []


def test_pool_that_is_a_file_is_refused(
    start: Start, served: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = start(host_gib=0.001, pool_dir=str(tmp_path / "file"))
    assert isinstance(result.exception, ConfigError)
    assert "is not a directory" in str(result.exception)
    assert served == []


def test_expected_error_is_one_line_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("HOLDFAST_DEBUG", raising=False)
    config = tmp_path / "holdfast.toml"
    config.write_text("[holdfast]\nevict = 1\n", encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["serve", "m", "--holdfast-config", str(config)])
    assert caught.value.code == EXIT_REFUSED
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {config}: unknown key 'evict'"
    assert second.startswith("hint: known: admission,")


def test_debugging_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    monkeypatch.setenv("HOLDFAST_MAX_SESSIONS", "none")
    with pytest.raises(SystemExit):
        main(["serve", "m"])
    assert "Traceback" in capsys.readouterr().err
