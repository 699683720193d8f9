"""Show the progress of a job: a live bar in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipelines.spark.session import is_classic

# Between two plain lines about one step: short enough to show that it lives, long enough for a log file.
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_FOR_LAST_LOOK = 5.0

# (done, total, note): how far a step is.
Advance = Callable[[int, int, str], None]


class Progress:
    """Writes lines and the progress of steps to `console`. The default is standard error, which has no results."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Write one line."""
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Advance]:
        """Show how far one step is, for the body; at its end, write a line with the seconds.

        Gives `advance(done, total, note)`, which the body calls. If the body raises, no last line is written.

        >>> import sys
        >>> with Progress(Console(file=sys.stdout)).step("decode") as advance:  # doctest: +ELLIPSIS
        ...     advance(20, 100, "images")
        decode …
        decode: done in ... s
        """
        start = time.monotonic()
        with (self._live if self.console.is_terminal else self._plain)(title) as advance:
            yield advance
        self.say(f"{title}: done in {time.monotonic() - start:.1f} s")

    @contextmanager
    def _live(self, title: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            # The bar moves back and forth until the total is known.
            bar = bars.add_task(title, total=None, shown="")

            def advance(done: int, total: int, note: str) -> None:
                bars.update(bar, completed=done, total=total, shown=f"{done:,}/{total:,} {note}")

            yield advance

    @contextmanager
    def _plain(self, title: str) -> Iterator[Advance]:
        self.say(f"{title} …")
        start = last = time.monotonic()

        def advance(done: int, total: int, note: str) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self.say(f"{title}: {done:,}/{total:,} {note} ({last - start:.0f} s)")

        yield advance


@contextmanager
def watched_step(
    progress: Progress, title: str, look: Callable[[Advance], bool], seconds_between_looks: float
) -> Iterator[None]:
    """Show a step for the body. A thread calls `look` while the body runs, and once more at its end.

    `look` calls the `Advance` that it is given, and returns whether it is useful to call it again.
    """
    finished = threading.Event()

    def watch(advance: Advance) -> None:
        last_look = False
        while not last_look:
            last_look = finished.wait(seconds_between_looks)
            if not look(advance):
                return

    with progress.step(title) as advance:
        watcher = threading.Thread(target=watch, args=(advance,), name="sparkcnn-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            # `look` may wait for a store that does not answer. An error of the body must not wait for it.
            watcher.join(SECONDS_FOR_LAST_LOOK)


@contextmanager
def images_done(
    progress: Progress, spark: SparkSession, title: str, total: int
) -> Iterator[Callable[[int], None] | None]:
    """Show how many of `total` images the Spark tasks of the body have done.

    Gives a function that tasks call with a number of images that are done. Spark Connect has no accumulators, so there
    it shows only the title and the time, and gives None.
    """
    if not is_classic(spark):
        with progress.step(title):
            yield None
        return
    done = spark.sparkContext.accumulator(0)
    start = time.monotonic()

    def look(advance: Advance) -> bool:
        if done.value:
            advance(done.value, total, f"images, {done.value / (time.monotonic() - start):,.0f} images/s")
        return True

    with watched_step(progress, title, look, SECONDS_BETWEEN_LOOKS):
        yield done.add
