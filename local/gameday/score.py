"""What came of each break, and what counts as good."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.table import Table

PROMISED = 60.0
"""Seconds within which a person is told of a failure that does not pass by itself."""


@dataclass
class Score:
    """One break. `quiet` ones are mended before anybody need hear of them; for all others somebody must be told.

    Seconds are this machine's: of detection from when the failure was final (no retry was left to mend it), of recovery
    from when its cause was gone.
    """

    name: str
    quiet: bool = False
    detected: float | None = None
    by: str = ""
    recovered: float | None = None
    how: str = ""
    lost: Sequence[str] = ()
    failure: str = ""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def begin(self) -> None:
        """From now on it counts: the failure is final, or its cause is gone."""
        self._since = self.clock()

    def was_detected(self, by: str) -> None:
        self.detected, self.by = self.clock() - self._since, by

    def was_recovered(self, how: str) -> None:
        self.recovered, self.how = self.clock() - self._since, how

    @property
    def told(self) -> str:
        if self.detected is None:
            return "quiet" if self.quiet else "nobody was told"
        return f"told after {self.detected:.1f} s: {self.by}"

    @property
    def problems(self) -> list[str]:
        """Why it is not good; nothing if it is."""
        found = [self.failure] if self.failure else []
        if self.quiet and self.detected is not None:
            found.append(f"somebody was woken for nothing: {self.by}")
        if not self.quiet and self.detected is None:
            found.append("nobody was told")
        if not self.quiet and self.detected is not None and self.detected > PROMISED:
            found.append(f"told after {self.detected:.0f} s, not within {PROMISED:.0f}")
        if self.recovered is None:
            found.append("it did not recover")
        return [*found, *(f"lost: {each}" for each in self.lost)]

    @property
    def good(self) -> bool:
        return not self.problems


def table(scores: Sequence[Score], *, seed: int) -> Table:
    drawn = Table(title=f"Game day, seed {seed}", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("", "what broke", "told after", "by", "well after", "how", "lost"):
        drawn.add_column(column, overflow="fold", justify="right" if column.endswith("after") else "left")
    for score in scores:
        told = "quiet" if score.quiet and score.detected is None else _seconds(score.detected)
        mark = "[green]✓[/]" if score.good else "[bold red]✗[/]"
        lost = ", ".join(score.lost) or "nothing"
        drawn.add_row(mark, score.name, told, score.by, _seconds(score.recovered), score.how, lost)
    return drawn


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
