"""Options declared in records: what a command receives, and what a manifest shows."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import click
import pytest
from click.testing import CliRunner

from holdfast.cli.demo_options import DemoArguments
from holdfast.cli.load_options import LOADS, LoadOptions
from holdfast.cli.main import cli
from holdfast.cli.options import Option, arguments_of, option, options_of, takes
from holdfast.cli.replay import ReplayArguments
from holdfast.cli.simulate_options import SimulateArguments
from holdfast.cli.traces import ConvertArguments, StatsArguments
from holdfast.cli.traces_generate import GenerateArguments
from holdfast.cli.traces_study import StudyArguments
from holdfast.cli.traces_validate import ValidateArguments

RECORDS = (
    *(ConvertArguments, DemoArguments, GenerateArguments, LoadOptions, ReplayArguments),
    *(SimulateArguments, StatsArguments, StudyArguments, ValidateArguments),
)
COUNT = option("--count", type=int, default=3)


@dataclass(frozen=True)
class Counted:
    count: Annotated[int, COUNT]
    where: Annotated[Path | None, option("--where", type=click.Path(path_type=Path))]


@dataclass(frozen=True)
class Named:
    name: Annotated[str, option("--name", required=True)]


def parsed_type(one: Option) -> object:
    """The type of the values that an option parses, None aside."""

    @click.command()
    def command() -> None: ...

    parameter = one.named("value", command).params[0]
    values: Mapping[str, object] = {"integer range": int, "float range": float, "text": str}
    kind = {"path": Path, "file": Path, "directory": Path, "choice": str, "boolean": bool}
    found = {**values, **kind, "integer": int}[parameter.type.name]
    if parameter.callback is not None or parameter.nargs != 1:
        return tuple
    return found


@pytest.mark.parametrize(
    ("record", "name"), [(record, each.name) for record in RECORDS for each in fields(record)]
)
def test_field_has_the_type_its_option_parses(record: type[Any], name: str) -> None:
    declared = get_type_hints(record)[name]
    is_union = get_origin(declared) in (Union, types.UnionType)
    parts = set(get_args(declared)) if is_union else {declared}
    one = options_of(record)[name]
    never_none = one.attributes.get("required") or one.attributes.get("is_flag")
    has_value = never_none or one.attributes.get("default") is not None
    assert (type(None) in parts) is not bool(has_value)
    (part,) = parts - {type(None)}
    assert (get_origin(part) or part) == parsed_type(one)


def run(command: Any, *arguments: str) -> str:
    result = CliRunner().invoke(click.command()(command), arguments, catch_exceptions=False)
    return result.output


def test_command_receives_one_object_of_each_record() -> None:
    @takes(Counted, Named)
    def command(counted: Counted, named: Named) -> None:
        click.echo(f"{counted} {named}")

    shown = run(command, "--name", "x", "--where", "a/b")
    assert shown == f"{Counted(3, Path('a/b'))} {Named('x')}\n"


def test_command_may_declare_an_option_otherwise() -> None:
    @takes(Counted, count=COUNT.but(default=5))
    def command(counted: Counted) -> None:
        click.echo(counted.count)

    assert run(command) == "5\n"
    assert COUNT.attributes["default"] == 3


def test_change_of_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="no field is called size"):
        takes(Counted, size=COUNT)


def test_required_options_come_first_in_the_help() -> None:
    @takes(Counted, Named)
    def command(counted: Counted, named: Named) -> None: ...

    shown = run(command, "--help")
    assert shown.index("--name") < shown.index("--count") < shown.index("--where")


@pytest.mark.parametrize(("with_directories", "where"), [(False, "b"), (True, "a/b")])
def test_manifest_shows_names_and_directories_on_request(
    with_directories: bool, where: str
) -> None:
    @takes(Counted)
    def command(counted: Counted) -> None:
        shown = arguments_of(click.get_current_context(), with_directories=with_directories)
        click.echo(sorted(shown.items()))

    assert run(command, "--where", "a/b") == f"{[('count', 3), ('where', where)]}\n"


@pytest.mark.parametrize("command", ["replay", "simulate"])
def test_load_options_are_the_same_everywhere(command: str) -> None:
    names = {name for one in options_of(LoadOptions).values() for name in one.names}
    declared = {name for parameter in cli.commands[command].params for name in parameter.opts}
    assert {name.partition("/")[0] for name in names} <= declared


def test_replay_refuses_more_than_one_load() -> None:
    arguments = ["replay", "--traces", "synthetic", "--url", "http://x", "--concurrency", "2,4"]
    result = CliRunner().invoke(cli, arguments)
    assert "'2,4' is more than one number" in result.output
    assert LOADS.names == ("--concurrency",)
