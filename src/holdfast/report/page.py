"""Self-contained HTML pages from the templates here; needs the [plots] extra."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from holdfast.errors import HoldfastError
from holdfast.traces.storage import new_file

__all__ = ["render_page", "require_plots", "write_whole"]

_HINT: Final = "pip install 'holdfast[plots]'"


def require_plots() -> None:
    """Check, before a long computation, that a page can be made.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise HoldfastError(f"the HTML report needs {' and '.join(missing)}", hint=_HINT)


def render_page(template: str, **values: Any) -> str:
    """Fill in a template, `NAME.html.jinja`, after `require_plots`; reads only that.

    Fails where the template names a value that is not given.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("holdfast.report").joinpath(f"{template}.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, replacing an old one in one step; creates its directory.

    Raises:
        HoldfastError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be written: {error.strerror}") from error
    with new_file(path) as file:
        file.write(content)
