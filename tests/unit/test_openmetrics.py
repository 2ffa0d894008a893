"""What `noria metrics` serves, how often it asks, and what that costs. In tests/prometheus a real one judges it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from noria.aws.series import AlarmNow, SeriesReader
from noria.boards import Board, Series, boards
from noria.cli.metrics import Exporter
from noria.cli.state import Deployed
from noria.grafana import dashboard
from noria.names import Names
from noria.openmetrics import Sample, exposition
from noria.spec import load_all

NAMES = Names(env="dev")
SPECS = load_all(Path(__file__).parents[2] / "models")
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def sample(family: str = "noria_rows", value: float = 1, **labels: str) -> Sample:
    return Sample(family=family, help="Rows", labels=labels, value=value)


def test_families_are_in_one_piece_with_type_unit_and_help_before_and_an_end_after() -> None:
    late = Sample(family="noria_age_seconds", help='"Old"\n', unit="seconds", labels={"a": 'x"\\\n'}, value=0.25)
    assert exposition([sample(model="b"), late, sample(model="a", value=1e6)]).splitlines() == [
        "# TYPE noria_age_seconds gauge",
        "# UNIT noria_age_seconds seconds",
        r"# HELP noria_age_seconds \"Old\"\n",
        r'noria_age_seconds{a="x\"\\\n"} 0.25',
        "# TYPE noria_rows gauge",
        "# HELP noria_rows Rows",
        'noria_rows{model="a"} 1000000',
        'noria_rows{model="b"} 1',
        "# EOF",
    ]


@pytest.mark.parametrize(
    "samples",
    [
        [sample(model="a"), sample(model="a", value=2)],
        [sample(model="a"), sample(model="b").model_copy(update={"help": "Others"})],
        [sample(model="a").model_copy(update={"unit": "seconds"})],
    ],
    ids=["the same labels twice", "two helps", "a unit that is not in the name"],
)
def test_what_prometheus_would_refuse_is_refused_before(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="noria_rows"):
        exposition(samples)


def test_every_series_of_every_board_can_be_served_with_the_others() -> None:
    """One help and one unit for each family, over all ways to serve and all monitors."""
    shown = boards(NAMES, SPECS, ["validate-upload", "deploy-model"])
    series = {s.selector: s for board in shown for s in board.series}
    text = exposition(
        [Sample(family=s.family, help=s.help, unit=s.unit, labels=s.labels, value=1) for s in series.values()]
    )
    assert len(re.findall(r"(?m)^noria_", text)) == len(series)


@pytest.mark.parametrize("board", list(boards(NAMES, SPECS, ["validate-upload"])), ids=lambda board: board.name)
def test_panels_of_a_grafana_dashboard_do_not_overlap_and_have_a_query_a_line(board: Board) -> None:
    panels = dashboard(board)["panels"]
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    drawn = {panel["title"]: len(panel["targets"]) for panel in panels if panel["type"] == "timeseries"}
    assert drawn == {panel.title: len(panel.lines) for panel in board.panels}
    assert json.loads(json.dumps(dashboard(board))) == dashboard(board)


# --- how often CloudWatch is asked


@dataclass(frozen=True, kw_only=True)
class Counting(SeriesReader):
    """A CloudWatch in which every series is 1, and that remembers what it was asked for."""

    client: Any = None
    asked: list[str] = field(default_factory=list)

    def newest(self, series: Sequence[Series], *, now: datetime) -> Iterator[float | None]:
        for each in series:
            self.asked.append(each.selector)
            yield 1.0

    def alarms(self, prefix: str) -> Iterator[AlarmNow]:
        yield AlarmNow(name=f"{prefix}dead-letters", raised=True, severity=None)


@pytest.fixture
def exporter() -> Exporter:
    made = Exporter(
        deployed=Deployed("dev"),
        specs=[spec for spec in SPECS if not spec.serve.mode.has_endpoint],
        every=timedelta(minutes=5),
        reader=Counting(),
    )
    made.__dict__["boards"] = list(boards(NAMES, SPECS, ["validate-upload"]))  # which asks SQS for its queues
    return made


def test_a_metric_is_asked_for_once_in_its_period_however_often_prometheus_asks(exporter: Exporter) -> None:
    for minute in range(60):
        exporter.samples(now=NOW + timedelta(minutes=minute))
    reader = exporter.reader
    assert isinstance(reader, Counting)
    for name, series in exporter.series.items():
        assert reader.asked.count(name) == -(-3600 // max(300, series.period)), name


def test_the_cost_is_what_a_month_of_asking_takes(exporter: Exporter) -> None:
    """0.01 USD for 1000 metrics: CloudWatch's pricing."""
    monthly = sum(730 * 3600 / max(300, series.period) for series in exporter.series.values())
    assert exporter.cost("us-east-1") == pytest.approx(monthly / 1000 * 0.01)
    assert exporter.cost("us-east-1") < 10


def test_what_nobody_knows_is_left_out(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "newest", lambda self, series, now: iter([None] * len(series)))
    families = {sample.family for sample in exporter.samples(now=NOW)}
    assert families == {"noria_alarm_raised"}
