"""Comma-separated option values, as click callbacks."""

from __future__ import annotations

import click

__all__ = ["names", "one_number", "whole_numbers"]


def names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Split a list of names; keeps the order, and the first of equal ones."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise click.BadParameter(f"{value!r} is not a comma-separated list", context, parameter)
    return tuple(dict.fromkeys(parts))


def whole_numbers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Split a list of whole numbers above 0; keeps the order, drops repetitions."""
    parts = names(context, parameter, value)
    if parts is None:
        return None
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise click.BadParameter(f"{part!r} is not a whole number above 0", context, parameter)
    return tuple(dict.fromkeys(map(int, parts)))


def one_number(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Read one whole number above 0, as a list of one."""
    parts = whole_numbers(context, parameter, value)
    if parts is not None and len(parts) > 1:
        raise click.BadParameter(f"{value!r} is more than one number", context, parameter)
    return parts
