"""The story on a terminal while it happens: a live panel, or plain lines where there is no terminal."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from local.demo.story import Check, Scene, Story


class Display:
    """A `story.Listener` that draws with rich."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._started = time.monotonic()

    def scene_started(self, scene: Scene) -> None:
        self.console.print(f"\n[bold cyan]{scene.number}  {scene.title}[/]")
        if self.console.is_terminal:
            self._live = Live(Group(self._spinner), console=self.console, refresh_per_second=8, transient=True)
            self._live.start()

    def waiting_for(self, scene: Scene, text: str) -> None:
        if self._live:
            self._spinner.update(text=Text(f" {text} …", style="dim"))

    def checked(self, scene: Scene, check: Check) -> None:
        took = f"[dim]{check.seconds:5.1f} s[/]" if check.seconds else " " * 7
        detail = f"  [dim]{check.detail}[/]" if check.detail else ""
        self.console.print(f"   [green]✓[/] {took}  {check.text}{detail}", highlight=False)

    def scene_ended(self, scene: Scene) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if scene.failure:
            self.console.print("   [bold red]✗[/] ", end="")
            self.console.print(scene.failure, style="red", markup=False, highlight=False)
        self.console.print(f"   [dim]{scene.seconds:.1f} s; {time.monotonic() - self._started:.0f} s so far[/]")


def closing_tables(console: Console, story: Story) -> None:
    """What was uploaded, decided and deployed, and why; then the model by month."""
    events = Table(title="What happened, and why", title_justify="left", show_edge=False, pad_edge=False)
    events.add_column("at", style="dim", no_wrap=True)
    events.add_column("what", style="cyan", no_wrap=True)
    events.add_column("why", overflow="fold")
    for entry in story.ledger:
        events.add_row(str(entry["at"])[11:19], str(entry["kind"]).replace("_", " "), str(entry["summary"]))
    console.print()
    console.print(events)
    months = Table(title="The model by month", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("month", "package", "rows", "AUC", "largest PSI", "drifted features"):
        months.add_column(column, justify="right" if column in {"rows", "AUC", "largest PSI"} else "left")
    for month in story.months:
        months.add_row(
            month.name,
            month.package,
            str(month.rows),
            f"{month.auc:.3f}",
            f"{month.max_psi:.2f}",
            ", ".join(month.drifted) or "none",
        )
    console.print()
    console.print(months)
    times = Table(title="Where the time went", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("turn of the wheel", "total", "jobs", "baking and starting", "orchestration"):
        times.add_column(column, justify="left" if column == "turn of the wheel" else "right")
    for turn in story.turns:
        seconds = [f"{value:.1f} s" for value in (turn.total, turn.jobs, turn.waiting, turn.orchestration)]
        times.add_row(turn.cause, *seconds)
    console.print()
    console.print(times)
    requests = Table(title="Requests while something happened", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("during", "answered", "failed", "p95"):
        requests.add_column(column, justify="left" if column == "during" else "right")
    for traffic in story.traffic:
        requests.add_row(traffic.during, str(traffic.answered), str(traffic.failed), f"{traffic.p95_ms:.0f} ms")
    console.print()
    console.print(requests)
