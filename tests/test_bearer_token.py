"""The bearer token of the control routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.bearer_token import TOKEN_VARIABLE, BearerToken, routes_token
from holdfast.errors import ConfigError

TEXT = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TEXT}\n")
    return path


@pytest.mark.parametrize(
    ("authorization", "is_admitted"),
    [
        (f"Bearer {TEXT}", True),
        (f"bearer  {TEXT} ", True),
        (TEXT, False),
        (f"Basic {TEXT}", False),
        (f"Bearer {TEXT}0", False),
        (f"Bearer {TEXT[:-1]}", False),
        ("Bearer", False),
        ("Bearer \xff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_token_is_admitted(authorization: str | None, is_admitted: bool) -> None:
    header = None if authorization is None else authorization.encode("latin-1")
    assert BearerToken(TEXT).admits(header) == is_admitted


def test_the_token_comes_from_a_file(file: Path) -> None:
    token = routes_token(str(file), {})
    assert token is not None and token.admits(f"Bearer {TEXT}".encode())


def test_the_variable_takes_precedence(file: Path) -> None:
    token = routes_token(str(file), {TOKEN_VARIABLE: "another token, as long"})
    assert token is not None and not token.admits(f"Bearer {TEXT}".encode())


def test_without_a_token_there_are_no_routes() -> None:
    assert routes_token(None, {}) is None
    assert routes_token(None, {TOKEN_VARIABLE: ""}) is None


@pytest.mark.parametrize("content", [b"", b"short secret", b"\xff" * 20, b"two\nlines" * 9])
def test_an_unusable_token_is_refused_and_not_shown(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=str(file)) as caught:
        routes_token(str(file), {})
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        routes_token(str(tmp_path / "none"), {})


def test_a_token_does_not_show_itself() -> None:
    assert TEXT not in f"{BearerToken(TEXT)!r}{BearerToken(TEXT)}"
