"""A comparison as one self-contained HTML page; needs the [plots] extra."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from holdfast.errors import HoldfastError
from holdfast.report.comparison import Comparison
from holdfast.report.plots import comparison_svg
from holdfast.report.table import format_gain, format_interval, format_load

__all__ = ["render_html", "require_plots", "write_html"]

_HINT: Final = "pip install 'holdfast[plots]'"


def require_plots() -> None:
    """Check that a page could be made, before a long measurement.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise HoldfastError(f"the HTML report needs {' and '.join(missing)}", hint=_HINT)


def render_html(comparison: Comparison, manifest: Mapping[str, Any]) -> str:
    """The table, the plots and the manifest as one page that loads nothing from elsewhere; pure.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    require_plots()
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("holdfast.report").joinpath("comparison.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        comparison=comparison,
        format_gain=format_gain,
        format_interval=format_interval,
        format_load=format_load,
        manifest=json.dumps(manifest, indent=2, sort_keys=True),
        svg=comparison_svg(comparison),
    )


def write_html(path: Path, comparison: Comparison, manifest: Mapping[str, Any]) -> None:
    """Write `render_html` to `path`.

    Raises:
        HoldfastError: The file cannot be written, or jinja2 or matplotlib is not installed.
    """
    page = render_html(comparison, manifest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be written: {error.strerror}") from error
