"""Tests of `holdfast gateway` with arguments that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cli.main import main

ENGINE = ("--engine", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "foo"), "expected http://HOST:PORT"),
        (("--engine", "http://h:x"), "expected http://HOST:PORT"),
        (("--engine", "http://[::1"), "expected http://HOST:PORT"),
        (("--engine", "ftp://h:1"), "expected http://HOST:PORT"),
        (("--engine", "http://u:p@h:1"), "expected http://HOST:PORT"),
        (("--engine", "http://h:1/admin"), "without a path"),
        ((*ENGINE, *ENGINE), "occurs twice"),
        ((*ENGINE, "--host", "0.0.0.0"), "lets everyone in"),
        ((*ENGINE, "--admin-host", "0.0.0.0"), "read the admin port"),
        ((*ENGINE, "--admin-token-file", "missing"), "missing"),
        ((*ENGINE, "--api-keys", "missing"), "missing"),
        ((*ENGINE, "--tls-cert", "missing"), "belong together"),
    ],
)
def test_arguments_are_refused_with_the_reason(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(("gateway", *arguments))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
