"""Three ways to look at a job that is followed: live, as plain lines, as JSON lines.

Knows nothing about where the data comes from.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainmaster._spool import OWN_METRICS
from trainmaster.cli.text import (
    clean_cell,
    clean_for_terminal,
    colour_of,
    format_number,
    format_seconds,
    sparkline,
)
from trainmaster.documents import Job, LogLine, MetricPoint

_SPARK_VALUES = 24
_METRICS_SHOWN_MAX = 8
_METRIC_LINE_SECONDS = 2.0


class View(Protocol):
    """What a followed job is shown on."""

    def show_job(self, job: Job) -> None:
        """Take a new version of the job, or the same with more progress."""

    def show_line(self, line: LogLine) -> None:
        """Take a line of log."""

    def show_points(self, points: list[MetricPoint]) -> None:
        """Take new metric points."""

    def note(self, text: str) -> None:
        """Take something about the view itself."""

    def tick(self) -> None:
        """Nothing came for a tenth of a second."""

    def show_end(self, job: Job) -> None:
        """Take the job as it ended; nothing follows."""

    def close(self) -> None:
        """Give the terminal back, however it ended."""


class Board:
    """What is known so far: the newest job, the newest values. Draws nothing."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.values: dict[str, deque[float]] = {}
        self.step: int | None = None
        self._rank_of: dict[str, int] = {}

    def take_points(self, points: list[MetricPoint]) -> None:
        """Remember the values of each metric's lowest rank; of those that the script records."""
        for point in points:
            if point.key.startswith(OWN_METRICS):
                continue
            rank = self._rank_of.setdefault(point.key, point.rank)
            if point.rank > rank:
                continue
            if point.rank < rank:
                self._rank_of[point.key] = point.rank
                self.values.pop(point.key, None)
            self.values.setdefault(point.key, deque(maxlen=_SPARK_VALUES)).append(point.value)
            self.step = max(self.step or 0, point.step)

    def marked(self, line: LogLine) -> str:
        """Return a line of log, with its rank when there are several."""
        has_several = self.job is not None and self.job.num_workers > 1
        return f"[{line.rank}] {line.text}" if has_several else line.text

    def state_line(self) -> str:
        """Return state, reason and message in one line."""
        if self.job is None:
            return ""
        parts = [self.job.state, self.job.reason or "", self.job.message or ""]
        return clean_cell(" · ".join(part for part in parts if part))

    def progress(self) -> tuple[int, int | None, str]:
        """Return steps done, steps in all, and the rest of what is known in words."""
        known = self.job.progress if self.job else None
        step = max(self.step or 0, known.step or 0 if known else 0)
        words = []
        if known and known.steps_per_second:
            words.append(f"{known.steps_per_second:.1f} steps/s")
        if known and known.remaining_seconds is not None and step < (known.total_steps or 0):
            words.append(f"{format_seconds(known.remaining_seconds)} left")
        return step, known.total_steps if known else None, " · ".join(words)


class LiveView:
    """On a terminal: log lines scroll by, and below them state, progress and metrics move."""

    def __init__(self, console: Console) -> None:
        self._board = Board()
        self._live = Live(
            console=console, auto_refresh=False, transient=False, get_renderable=self._render
        )
        self._live.start()
        self._drawn_at = 0.0

    def show_job(self, job: Job) -> None:
        """Take a new version of the job, or the same with more progress."""
        self._board.job = job
        self._draw_soon()

    def show_line(self, line: LogLine) -> None:
        """Print the line above the moving part."""
        text = clean_for_terminal(self._board.marked(line))
        self._live.console.print(Text(text), soft_wrap=True)

    def show_points(self, points: list[MetricPoint]) -> None:
        """Take new metric points."""
        self._board.take_points(points)
        self._draw_soon()

    def note(self, text: str) -> None:
        """Print a remark above the moving part."""
        self._live.console.print(Text(clean_cell(text), style="yellow"))

    def tick(self) -> None:
        """Draw what has changed."""
        self._live.refresh()

    def show_end(self, job: Job) -> None:
        """Leave the last picture standing."""
        self._board.job = job
        self._live.refresh()

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _draw_soon(self) -> None:
        now = time.monotonic()
        if now - self._drawn_at > 0.1:  # more often only flickers
            self._drawn_at = now
            self._live.refresh()

    def _render(self) -> RenderableType:
        job = self._board.job
        if job is None:
            return Text("")
        head = Text.assemble(
            (clean_cell(job.name or job.id), "bold"),
            f"  {job.id}  ",
            (self._board.state_line(), colour_of(job.state)),
        )
        head.no_wrap, head.overflow = True, "ellipsis"
        parts: list[RenderableType] = [head]
        step, total, words = self._board.progress()
        if step or total:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=total or None, completed=step, width=30, pulse=total is None)
            count = f"step {step}" + (f"/{total}" if total else "")
            row.add_row(bar, count, Text(words, style="dim"))
            parts.append(row)
        if self._board.values:
            parts.append(self._render_metrics())
        return Group(*parts)

    def _render_metrics(self) -> Table:
        table = Table.grid(padding=(0, 2))
        shown = sorted(self._board.values.items())[:_METRICS_SHOWN_MAX]
        for key, values in shown:
            trend = sparkline(values, width=_SPARK_VALUES)
            table.add_row(clean_cell(key), format_number(values[-1]), Text(trend, style="cyan"))
        hidden = len(self._board.values) - len(shown)
        if hidden:
            table.add_row(f"and {hidden} more", "", "")
        return table


class PlainView:
    """In a pipe or a file: one line for each thing that happens, nothing that moves."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._board = Board()
        self._said = ""
        self._metrics_at = float("-inf")
        self._has_news = False

    def show_job(self, job: Job) -> None:
        """Print state, reason and message when one of them is new; how it ended comes last."""
        self._board.job = job
        if not job.is_terminal:
            self._print_state(job)

    def show_line(self, line: LogLine) -> None:
        """Print the line."""
        self._print(self._board.marked(line))

    def show_points(self, points: list[MetricPoint]) -> None:
        """Print the newest value of each metric, at most every two seconds."""
        self._board.take_points(points)
        self._has_news = True
        if self._clock() - self._metrics_at >= _METRIC_LINE_SECONDS:
            self._print_metrics()

    def note(self, text: str) -> None:
        """Print a remark."""
        self._print(clean_cell(text))

    def tick(self) -> None:
        """Nothing moves here."""

    def show_end(self, job: Job) -> None:
        """Print what is left."""
        if self._has_news:
            self._print_metrics()
        self._board.job = job
        self._print_state(job)

    def close(self) -> None:
        """Nothing to give back."""

    def _print_state(self, job: Job) -> None:
        line = f"{job.id} {self._board.state_line()}"
        if line != self._said:
            self._said = line
            self._print(line)

    def _print_metrics(self) -> None:
        self._metrics_at, self._has_news = self._clock(), False
        step, total, words = self._board.progress()
        count = f"step {step}" + (f"/{total}" if total else "")
        values = [f"{key} {format_number(seen[-1])}" for key, seen in self._board.values.items()]
        self._print(" · ".join(part for part in [count, words, *sorted(values)] if part))

    def _print(self, line: str) -> None:
        self._console.out(line, highlight=False)


class JSONView:
    """For scripts: one JSON document per line, each with its `type`, `end` last."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self._version: int | None = None

    def show_job(self, job: Job) -> None:
        """Emit a new version of the job."""
        if job.version != self._version:
            self._version = job.version
            self._emit({"type": "job", "job": dict(job.raw)})

    def show_line(self, line: LogLine) -> None:
        """Emit the line as it came."""
        self._emit({"type": "log", **line.raw})

    def show_points(self, points: list[MetricPoint]) -> None:
        """Emit the points as they came."""
        self._emit({"type": "metrics", "points": [dict(point.raw) for point in points]})

    def note(self, text: str) -> None:
        """Emit a remark."""
        self._emit({"type": "note", "message": text})

    def tick(self) -> None:
        """Nothing moves here."""

    def show_end(self, job: Job) -> None:
        """Emit the job as it ended."""
        self._emit({"type": "end", "job": dict(job.raw)})

    def close(self) -> None:
        """Nothing to give back."""
