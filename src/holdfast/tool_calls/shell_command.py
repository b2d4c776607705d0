"""The class of a tool call's arguments: the head of a shell command.

It separates `git status` from `npm test` and consists of program and sub-command names only, never
of paths, arguments or text of the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.tool_kind import tool_kind

__all__ = ["ArgumentClues", "argument_class", "argument_clues"]

_MAX_COMMAND_CHARS = 1024
_MAX_WORDS = 64
_MAX_CLASS_CHARS = 64
_COMMAND_KEYS = ("command", "cmd", "script", "commandline", "command_line", "code")

_BROKEN_COMMAND = re.compile(
    r'"(?:command|cmd|script|commandline|command_line)"\s{0,8}:\s{0,8}'
    r'(?:"((?:[^"\\]|\\.)*+)|(\[[^\]]*+))',
    re.IGNORECASE | re.DOTALL,
)
_BROKEN_CLUE = re.compile(
    r'"(run_in_background|background|is_background|timeout|timeout_ms|timeout_s)"\s{0,8}:\s{0,8}'
    r'"?([\w.]{1,16})'
)
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"?', re.DOTALL)
_ESCAPES = {"n": "\n", "t": " ", "r": "\n"}

# Operators end a command; quoted parts and escapes belong to their word.
_TOKEN = re.compile(
    r"(?P<operator>&&|\|\||[;&|\n()])"
    r"|(?P<comment>\#[^\n]*+)"
    r"|(?P<word>(?:[^\s\"'\\;&|()]|\\.|\"(?:[^\"\\]|\\.)*+\"?|'[^']*+'?)++)",
    re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_PROGRAM = re.compile(r"[A-Za-z0-9_][\w.+\-]{0,47}")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# Commands that only prepare the one that takes the time.
_PREPARATION_NAMES = """
    cd pushd popd export unset source set alias true echo printf umask ulimit shopt set-location
"""
_PREPARATIONS = frozenset(_PREPARATION_NAMES.split())
# Words that run the command after them, each with its options that take a value.
_WRAPPERS: dict[str, frozenset[str]] = {
    "sudo": frozenset({"-u", "-g"}),
    "time": frozenset(),
    "nohup": frozenset(),
    "env": frozenset({"-u"}),
    "nice": frozenset({"-n"}),
    "exec": frozenset(),
    "command": frozenset(),
    "stdbuf": frozenset(),
    "xvfb-run": frozenset(),
    "npx": frozenset({"-p", "--package"}),
    "bunx": frozenset(),
    "uvx": frozenset({"--from", "--with"}),
    "then": frozenset(),
    "do": frozenset(),
    "if": frozenset(),
    "while": frozenset(),
    "until": frozenset(),
    "!": frozenset(),
    "{": frozenset(),
}
_TIMEOUT_OPTIONS = frozenset({"-s", "-k", "--signal", "--kill-after"})
# `program word` pairs that run the command after them.
_RUNNERS = frozenset(
    {("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("hatch", "run"), ("bundle", "exec")}
    | {("pnpm", "exec"), ("npm", "exec"), ("yarn", "exec"), ("rye", "run"), ("pdm", "run")}
)
_SHELLS = frozenset({"bash", "sh", "zsh", "dash", "fish", "pwsh", "powershell"})
_PYTHONS = frozenset({"python", "python3", "py"})
_SUBCOMMAND_NAMES = """
    git gh glab npm pnpm yarn bun deno pip pip3 uv poetry conda mamba cargo rustup go dotnet
    docker podman docker-compose kubectl helm terraform aws gcloud az make just task mise ninja
    cmake bazel gradle gradlew mvn mvnw brew apt apt-get dnf yum apk systemctl service tmux bd
    rails rake bundle mix composer php artisan flutter dart swift xcodebuild nx turbo lerna
    pre-commit tox nox hatch ray prisma supabase firebase vercel wrangler
"""
_WITH_SUBCOMMAND = frozenset(_SUBCOMMAND_NAMES.split())
_OPTIONS_WITH_VALUE = frozenset(
    {"-C", "-c", "-f", "-p", "-n", "-R", "--prefix", "--filter", "--context", "--namespace"}
    | {"--git-dir", "--work-tree", "--cwd", "--directory", "--repo", "--manifest-path"}
)


@dataclass(frozen=True, slots=True)
class ArgumentClues:
    """Clues to a call's duration in its arguments.

    Attributes:
        background: Whether the tool returns at once and continues in the background.
        timeout_s: The call's own timeout, on the tool's clock (s).
        sleep_s: Duration of a leading `sleep`, on the same clock (s).
    """

    background: bool = False
    timeout_s: float | None = None
    sleep_s: float | None = None


def argument_class(call: ToolCall) -> str:
    """Return the class of a shell call's arguments; "" for other tools. Pure.

    The head of the command, with the sub-command of programs that have them (`git status`,
    `pytest`), and a trailing ` &` when it runs in the background. Never raises.
    """
    if tool_kind(call.name) != "shell":
        return ""
    arguments = _decoded(call.arguments)
    head = _head(list(_words(_command_of(arguments, call.arguments))))[:_MAX_CLASS_CHARS]
    return f"{head} &".lstrip() if _clues(arguments, call.arguments).background else head


def argument_clues(call: ToolCall) -> ArgumentClues:
    """Return the clues to a call's duration in its arguments. Pure; never raises."""
    arguments = _decoded(call.arguments)
    clues = _clues(arguments, call.arguments)
    if tool_kind(call.name) != "shell":
        return clues
    words = [word for word in _words(_command_of(arguments, call.arguments)) if word]
    timeout_s = clues.timeout_s
    if timeout_s is None and words[:1] == ["timeout"]:
        limit_at = _after_options(words, 1, _TIMEOUT_OPTIONS)
        timeout_s = _duration_s(words[limit_at]) if limit_at < len(words) else None
    sleep_s = _duration_s(words[1]) if words[:1] == ["sleep"] and len(words) > 1 else None
    return ArgumentClues(clues.background, timeout_s, sleep_s)


def _decoded(arguments: str) -> dict[str, object]:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _command_of(arguments: dict[str, object], raw: str) -> str:
    for key, value in arguments.items():
        if key.casefold() in _COMMAND_KEYS:
            if isinstance(value, list):
                return _from_words([word for word in value if isinstance(word, str)])
            # Some models write the list as text.
            text = value.strip() if isinstance(value, str) else ""
            if text.startswith('["'):
                return _from_words(_strings_of(text))
            return text[:_MAX_COMMAND_CHARS]
    broken = _BROKEN_COMMAND.search(raw)
    if broken is None:
        return ""
    if broken[1] is not None:
        return _unescaped(broken[1])[:_MAX_COMMAND_CHARS]
    return _from_words(_strings_of(broken[2]))


def _strings_of(text: str) -> list[str]:
    return [_unescaped(match[1]) for match in _JSON_STRING.finditer(text)]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)


def _from_words(words: list[str]) -> str:
    """Return the command of an argument vector: a shell's script, or the words joined."""
    if len(words) >= 3 and _base(words[0]) in _SHELLS and words[1].startswith("-"):
        return words[2][:_MAX_COMMAND_CHARS]
    return " ".join(words)[:_MAX_COMMAND_CHARS]


def _words(command: str) -> Iterator[str]:
    """Yield the first words, without comments; an operator is the empty word."""
    for index, match in enumerate(_TOKEN.finditer(command)):
        if index >= _MAX_WORDS:
            return
        if match["word"] is not None:
            yield match["word"]
        elif match["operator"] is not None:
            yield ""


def _head(words: list[str], depth: int = 0) -> str:
    """Return the head of the first command that does more than prepare another."""
    fallback = ""
    while words:
        end = words.index("") if "" in words else len(words)
        command, words = words[:end], words[end + 1 :]
        command = _unwrapped(command)
        if not command:
            continue
        program = _base(command[0])
        if program in _SHELLS and depth < 2 and len(command) > 2 and command[1].startswith("-"):
            return _head(list(_words(command[2].strip("\"'"))), depth + 1) or program
        if program in _PREPARATIONS:
            fallback = fallback or program
            continue
        return _with_subcommand(program, command[1:])
    return fallback


def _unwrapped(command: list[str]) -> list[str]:
    """Return `command` without assignments and words that only run another command."""
    at = 0
    while at < len(command):
        program = _base(command[at])
        if _ASSIGNMENT.match(command[at]):
            at += 1
        elif program == "timeout":
            at = _after_options(command, at + 1, _TIMEOUT_OPTIONS) + 1
        elif program in _WRAPPERS and at + 1 < len(command):
            at = _after_options(command, at + 1, _WRAPPERS[program])
        elif (program, *command[at + 1 : at + 2]) in _RUNNERS and at + 2 < len(command):
            at = _after_options(command, at + 2, frozenset({"--with", "--extra", "--group"}))
        elif program in _PYTHONS and command[at + 1 : at + 2] == ["-m"] and at + 2 < len(command):
            at += 2
        else:
            break
    return command[at:]


def _after_options(command: list[str], at: int, with_value: frozenset[str]) -> int:
    while at < len(command) and command[at].startswith("-"):
        at += 2 if command[at] in with_value else 1
    return at


def _with_subcommand(program: str, rest: list[str]) -> str:
    if not program or program not in _WITH_SUBCOMMAND:
        return program
    at = _after_options(rest, 0, _OPTIONS_WITH_VALUE)
    if at < len(rest) and (match := _PROGRAM.fullmatch(rest[at].replace(":", "-"))) is not None:
        return f"{program} {match[0]}"
    return program


def _base(word: str) -> str:
    """Return the program's name without directory, quotes, extension and version."""
    name = word.strip("\"'").replace("\\", "/").rsplit("/", 1)[-1].casefold()
    name = name.removesuffix(".exe")
    if name in ("!", "{"):
        return name
    if name.startswith("python3."):
        return "python3"
    return name if _PROGRAM.fullmatch(name) else ""


def _clues(arguments: dict[str, object], raw: str) -> ArgumentClues:
    values = {key.casefold(): str(value)[:16] for key, value in arguments.items()}
    if not values:
        values = {match[1].casefold(): match[2] for match in _BROKEN_CLUE.finditer(raw)}
    background = any(
        values.get(key, "").casefold() == "true"
        for key in ("run_in_background", "background", "is_background")
    )
    for key, unit_s in (("timeout_ms", 1e-3), ("timeout_s", 1.0), ("timeout", 1e-3)):
        if (duration_s := _duration_s(values.get(key, ""))) is not None:
            # Agents state a bare timeout in milliseconds or in seconds; none is below a second.
            bare_seconds = key == "timeout" and duration_s < 1000
            return ArgumentClues(background, duration_s if bare_seconds else duration_s * unit_s)
    return ArgumentClues(background)


def _duration_s(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    return None if match is None else float(match[1]) * _SECONDS[match[2]]
