"""Figures as SVG text for use inside a page; needs the [plots] extra."""

from __future__ import annotations

import io
import re
from typing import Any

__all__ = ["plain_text", "style_axis", "svg_settings", "svg_text"]


def svg_settings() -> Any:
    """A context in which equal figures give equal SVG, with letters as text."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": "holdfast", "svg.fonttype": "none"})


def svg_text(figure: Any) -> str:
    """The figure for use inside HTML: without prologue, namespaces and metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(?<=\s)xmlns(:\w+)?="[^"]*"\s*', "", text, count=2)


def plain_text(text: str) -> str:
    """Text that matplotlib neither reads as mathematics nor hides in a legend. Pure."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def style_axis(axis: Any) -> None:
    """Give an axis the style of all figures; changes it."""
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
