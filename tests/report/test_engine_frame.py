"""The frame of `holdfast top`."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from holdfast.core.engine_view import EngineView
from holdfast.core.seen_state import SeenSession
from holdfast.report.engine_frame import engine_frame


@pytest.mark.parametrize("width", [110, 132, 200])
def test_engines_of_one_host_are_told_apart(width: int) -> None:
    session = SeenSession(number=1, session_id="s", state="waiting")
    urls = ("http://gpu-rack-17.internal:8000", "http://gpu-rack-17.internal:8001")
    views = [EngineView(url=url, listed=[session]) for url in urls]
    console = Console(width=width, file=io.StringIO())
    console.print(engine_frame(views, width, None))
    assert isinstance(console.file, io.StringIO)
    rows = [line for line in console.file.getvalue().splitlines() if line.startswith("s ")]
    assert [row.split()[1][-5:] for row in rows] == [":8000", ":8001"]


def test_the_end_of_a_long_address_is_shown() -> None:
    urls = [f"http://inference-gpu-rack-17.cluster.internal:800{n}" for n in range(2)]
    console = Console(width=132, file=io.StringIO())
    console.print(engine_frame([EngineView(url=url, policy="holdfast") for url in urls], 132, None))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert ".internal:8000" in text and ".internal:8001" in text
