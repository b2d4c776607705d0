"""The screen of `holdfast top`, on Textual: keys, resizing, a clean end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.widgets import Footer, Static

from holdfast.bench.engine_watch import EngineWatch, look_at_all
from holdfast.core.engine_view import EngineView
from holdfast.report.engine_frame import engine_frame

__all__ = ["TopApp"]

_MARGINS: Final = 4
_LEAST_COLUMNS: Final = 20


class TopApp(App[None]):
    """Shows engines until `q` or Ctrl-C.

    Args:
        watches: The engines.
        interval_s: Time between two looks (s).

    Attributes:
        views: What the last look found.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = "Static { width: auto; padding: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
        Binding("p", "pause", "pause or go on"),
    ]

    def __init__(self, watches: Sequence[EngineWatch], interval_s: float) -> None:
        super().__init__(ansi_color=True)
        self._watches = watches
        self._interval_s = interval_s
        self.views: Sequence[EngineView] = ()
        self._is_paused = False

    def compose(self) -> ComposeResult:
        """The widgets: a frame that scrolls, and the keys."""
        with VerticalScroll():
            yield Static("reading ...", id="frame")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.set_interval(self._interval_s, self.look_now)
        self.look_now()

    def on_resize(self, event: Resize) -> None:
        """Draw for the new size."""
        if self.views:
            self._draw(event.size.width)

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._is_paused = not self._is_paused

    def look_now(self) -> None:
        """Read the engines, unless the last look has not ended or the view is paused."""
        is_looking = any(
            worker.group == "look" and not worker.is_finished for worker in self.workers
        )
        if not self._is_paused and not is_looking:
            self.run_worker(self._look(), group="look")

    async def _look(self) -> None:
        self.views = await look_at_all(self._watches)
        self._draw(self.size.width)

    def _draw(self, columns: int) -> None:
        frame = engine_frame(self.views, max(columns - _MARGINS, _LEAST_COLUMNS), None)
        self.query_one("#frame", Static).update(frame)
