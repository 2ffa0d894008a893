"""`noria metrics`: what the dashboards show, for Prometheus and Grafana."""

import http.server
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock

from botocore.exceptions import BotoCoreError, ClientError

from noria.aws import account
from noria.aws.endpoints import CHAMPION, Endpoint
from noria.aws.queues import Queues
from noria.aws.series import SeriesReader
from noria.boards import Board, Series, boards, of_monitor
from noria.cli.state import Deployed
from noria.grafana import dashboard
from noria.monitors import monitors
from noria.openmetrics import CONTENT_TYPE, Sample, exposition
from noria.prices import HOURS, prices
from noria.spec import ModelSpec
from noria.units import format_duration


@dataclass(frozen=True)
class Known:
    """A value, and until when it is not asked for again."""

    value: float | None
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Reads each series once in `every`, and no more often than it can change: CloudWatch takes money for each."""

    deployed: Deployed
    specs: Sequence[ModelSpec]
    every: timedelta
    reader: SeriesReader = field(default_factory=SeriesReader)
    _known: dict[str, Known] = field(default_factory=dict, repr=False)
    _reading: Lock = field(default_factory=Lock, repr=False)

    @cached_property
    def boards(self) -> list[Board]:
        return list(boards(self.deployed.names, self.specs, Queues().of_reactions(self.deployed.names)))

    @cached_property
    def series(self) -> dict[str, Series]:
        """Each series once, by its name outside."""
        return {series.selector: series for board in self.boards for series in board.series}

    def cost(self, region: str) -> float:
        """US dollars a month, if somebody asks all the time: CloudWatch's price of what is read."""
        seconds = [max(self.every.total_seconds(), series.period) for series in self.series.values()]
        return prices(region)["metric.read"].cost(sum(HOURS * 3600 / each for each in seconds))

    def told(self, port: int) -> str:
        """Where they are served, and what that costs."""
        region = account.region() or ""
        cost = "" if self.deployed.env == "local" else f", {self.cost(region):.2f} USD a month at most"
        asked = f"{len(self.series)} metrics, each asked for once in {format_duration(self.every)} or its own period"
        return f"http://127.0.0.1:{port}/metrics: {asked}{cost}"

    def samples(self, *, now: datetime) -> list[Sample]:
        with self._reading:
            due = {
                name: series
                for name, series in self.series.items()
                if name not in self._known or self._known[name].until <= now
            }
            for (name, series), value in zip(due.items(), self.reader.newest(list(due.values()), now=now), strict=True):
                again = self.every if value is None else max(self.every, timedelta(seconds=series.period))
                self._known[name] = Known(value, now + again)
            return [*self._measured(), *self._limits(), *self._alarms(), *self._versions()]

    def _measured(self) -> Iterator[Sample]:
        for name, series in self.series.items():
            if (value := self._known[name].value) is not None:
                yield Sample(
                    family=series.family, help=series.help, unit=series.unit, labels=series.labels, value=value
                )

    def _limits(self) -> Iterator[Sample]:
        for spec in self.specs:
            for monitor in monitors(spec) if spec.serve.mode.has_endpoint else ():
                yield Sample(
                    family="noria_monitor_limit",
                    help="Beyond this a monitor speaks, in the unit of what it measures",
                    labels={"model": spec.model, "monitor": monitor.name, "breaches": monitor.breaches},
                    value=monitor.limit * of_monitor(spec, monitor).factor,
                )

    def _alarms(self) -> Iterator[Sample]:
        for alarm in self.reader.alarms(f"{self.deployed.names.prefix}-"):
            yield Sample(
                family="noria_alarm_raised",
                help="Whether an alarm is in ALARM; severity none is for no person",
                labels={"alarm": alarm.name, "severity": alarm.severity or "none"},
                value=alarm.raised,
            )

    def _versions(self) -> Iterator[Sample]:
        for spec in self.specs:
            if not spec.serve.mode.has_endpoint:
                continue
            state = Endpoint(name=self.deployed.names.model(spec.model)).state()
            package = state.packages.get(CHAMPION) if state else None
            yield Sample(
                family="noria_live_version",
                help="The version that answers, 0 where none does",
                labels={"model": spec.model},
                value=int(package.rsplit("/", 1)[-1]) if package else 0,
            )

    def serve(self, port: int) -> None:
        """Answer `GET /metrics` on this machine alone, until interrupted; 502 where AWS did not answer."""
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "the metrics are at /metrics")
                    return
                try:
                    body = exposition(exporter.samples(now=datetime.now(UTC))).encode()
                except (BotoCoreError, ClientError) as error:
                    self.send_error(502, "AWS did not answer", str(error))
                    return
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Prometheus asks all the time."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            server.serve_forever()

    def write_dashboards(self, folder: Path) -> list[Path]:
        """Grafana's dashboards as JSON, one for each board."""
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for board in self.boards:
            path = folder / f"{board.name}.json"
            path.write_text(json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            written.append(path)
        return written
