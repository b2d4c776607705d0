"""Command options declared once, in typed records that commands receive.

A record is a frozen dataclass whose fields are annotated with the option that fills them:

    concurrency: Annotated[int, option("--concurrency", type=int, default=8, help="...")]

`takes(Record)` gives a command those options and calls it with one `Record`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints, overload

import click

from holdfast.traces.storage import printable

__all__ = [
    "FILE",
    "HTML_FILE",
    "JSON_FILE",
    "Option",
    "argument",
    "arguments_of",
    "option",
    "options_of",
    "takes",
]

First = TypeVar("First")
Second = TypeVar("Second")
Third = TypeVar("Third")
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Option:
    """One option or argument of a command, before it has the name of a field.

    Attributes:
        declare: `click.option` or `click.argument`.
        names: Names on the command line.
        attributes: Other arguments of `declare`.
    """

    declare: Callable[..., Any]
    names: tuple[str, ...]
    attributes: Mapping[str, Any]

    def but(self, **attributes: Any) -> Option:
        """The same option with other attributes; pure."""
        return dataclasses.replace(self, attributes={**self.attributes, **attributes})

    def named(self, name: str, command: Command) -> Command:
        """Add the option to a command, which receives its value as `name`."""
        declared: Command = self.declare(*self.names, name, **self.attributes)(command)
        return declared


def option(*names: str, **attributes: Any) -> Option:
    """An option, as `click.option` takes it."""
    return Option(click.option, names, attributes)


def argument(**attributes: Any) -> Option:
    """A positional argument, as `click.argument` takes it."""
    return Option(click.argument, (), attributes)


FILE: Final = click.Path(dir_okay=False, path_type=Path)
"""A file to read or to write."""

JSON_FILE: Final = option("--json", type=FILE, help="Write the results here, as JSON.")
HTML_FILE: Final = option("--html", type=FILE, help="Write a page with tables and plots here.")


def options_of(record: type[Any]) -> dict[str, Option]:
    """The option of each field of a record; pure."""
    hints = get_type_hints(record, include_extras=True)
    return {
        field.name: next(one for one in hints[field.name].__metadata__ if isinstance(one, Option))
        for field in dataclasses.fields(record)
    }


@overload
def takes(
    first: type[First], /, **changed: Option
) -> Callable[[Callable[[First], None]], Callable[..., None]]: ...
@overload
def takes(
    first: type[First], second: type[Second], /, **changed: Option
) -> Callable[[Callable[[First, Second], None]], Callable[..., None]]: ...
@overload
def takes(
    first: type[First], second: type[Second], third: type[Third], /, **changed: Option
) -> Callable[[Callable[[First, Second, Third], None]], Callable[..., None]]: ...
def takes(
    *records: type[Any], **changed: Option
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of records, and the command one object of each.

    Args:
        records: Dataclasses, each field annotated with its option.
        changed: Options that this command declares otherwise, by the name of their field.
    """
    options = {name: one for record in records for name, one in options_of(record).items()}
    if unknown := changed.keys() - options.keys():
        raise TypeError(f"no field is called {', '.join(sorted(unknown))}")
    options |= changed

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def parsed(**values: Any) -> None:
            command(*(_filled(record, values) for record in records))

        # click lists first what is declared last; required options come first.
        ordered = sorted(options.items(), key=_is_optional)
        for name, one in reversed(ordered):
            parsed = one.named(name, parsed)
        return parsed

    return decorate


def arguments_of(context: click.Context, *, with_directories: bool = False) -> dict[str, Any]:
    """All values of a command for a manifest, by the name of their field; pure.

    Args:
        context: Of the command.
        with_directories: Whether paths keep their directories, which do not matter for what was
            measured.
    """
    return {name: _shown(value, with_directories) for name, value in context.params.items()}


def _filled(record: type[Any], values: Mapping[str, Any]) -> Any:
    return record(**{field.name: values[field.name] for field in dataclasses.fields(record)})


def _is_optional(entry: tuple[str, Option]) -> bool:
    return not entry[1].attributes.get("required", False)


def _shown(value: Any, with_directories: bool) -> Any:
    if isinstance(value, tuple):
        return [_shown(each, with_directories) for each in value]
    if isinstance(value, Path):
        return str(value) if with_directories else printable(value.name)
    return value
