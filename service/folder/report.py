"""What a person sees of a run: a bar with rate and time left, failures as they come, the sum."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ppool.service.folder.photos import Found

__all__ = ["Report"]

# Where nothing moves, as in a log, a line after this long.
_LINE_SECONDS = 30.0
# Of reasons, and of the names that stand behind each.
_MOST_REASONS, _MOST_NAMES = 12, 3


class _Rate(ProgressColumn):
    """Pages a second, or a minute where that is less than one."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed), style="progress.data.speed")


class Report:
    """Writes to ``console``; enter it before the first page."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        # Half a minute of rate, as is usual, has few large pages in it.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            speed_estimate_period=120,
            get_time=clock,
        )
        self._bar = self._progress.add_task("segmenting", total=None)
        self._reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._start = self._last_line = clock()

    def __enter__(self) -> Report:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def found(self, found: Found) -> None:
        """Name what is no photo, and what cannot be looked at."""
        for name, reason in found.skipped.items():
            self._say("skipped", name, reason)
        for name, reason in found.failed.items():
            self._say("failed", name, reason)

    def more(self, count: int) -> None:
        """So many more pages than was thought."""
        total = self._progress.tasks[0].total or 0
        self._progress.update(self._bar, total=total + count)

    def done(self, name: str, problem: str) -> None:
        """A page is done, or ``problem`` says why not."""
        self._progress.advance(self._bar)
        if problem:
            self._say("failed", name, problem)
        now = self._clock()
        if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            task = self._progress.tasks[0]
            left = "" if task.time_remaining is None else f", {_span(task.time_remaining)} left"
            self._print(f"{task.completed:.0f}/{task.total or 0:.0f}, {_rate(task.speed)}{left}")

    def sum_up(self, written: int, where: str) -> None:
        """Say how long it took, where everything is, and why something is missing."""
        seconds = self._clock() - self._start
        rate = f", {_rate(written / seconds)}" if written else ""
        self._print(f"{written} written in {_span(seconds)}{rate}")
        self._print(_shown(where))
        largest = sorted(self._reasons.items(), key=lambda entry: (entry[0][0], -len(entry[1])))
        for (what, reason), names in largest[:_MOST_REASONS]:
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            some = ", ".join(map(_shown, names[:_MOST_NAMES]))
            self._print(f"{len(names)} {what}: {reason} ({some}{more})")
        if others := largest[_MOST_REASONS:]:
            count = sum(len(names) for _, names in others)
            self._print(f"{count} for {len(others)} other reasons, named above")

    def _say(self, what: str, name: str, reason: str) -> None:
        self._reasons[what, reason].append(name)
        self._print(f"{what}: {_shown(name)}: {reason}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _rate(speed: float | None) -> str:
    if not speed:
        return "?/s"
    return f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"


def _span(seconds: float) -> str:
    """A time as people say it: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
