"""A real Prometheus reads `noria metrics` of a local cloud, and answers every query of Grafana's dashboards.

Run by `make prometheus-test`: Prometheus is Debian's package, unpacked and not installed.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.cloud import REPOSITORY, LocalCloud
from noria.alarms import Severity, Told
from noria.boards import Board, boards
from noria.grafana import dashboard, expressions
from noria.names import Names
from noria.spec import ModelSpec, load_all

PORT = 4732
PROMETHEUS = REPOSITORY / ".noria" / "prometheus" / "usr" / "bin"
NAMES = Names(env="local")
MODELS = REPOSITORY / "models"
REACTION = "validate-upload"
RAISED = NAMES.dead_letters
CALM = f"{NAMES.prefix}-flight-delay-serving"
VALUE = 40.0
"""Of every metric that is put."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str | Path, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def eventually(check: Callable[[], Any], log: Path, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := check():
                return answer
        except OSError:
            pass  # it has not begun to listen
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s; {log.name}: {log.read_text()[-2000:]}")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - always http, on this machine
        return str(answer.read().decode())


@dataclass(frozen=True)
class World:
    exporter: str
    prometheus: str
    boards: tuple[Board, ...]
    specs: tuple[ModelSpec, ...]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers now; fails on an expression that it does not understand."""
        answer = json.loads(get(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    assert (PROMETHEUS / "prometheus").is_file(), "run `make prometheus` first"
    folder = tmp_path_factory.mktemp("prometheus")
    specs = load_all(MODELS)
    shown = tuple(boards(NAMES, specs, [REACTION]))
    with LocalCloud(root=folder / "cloud", port=PORT) as cloud, pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        fill(shown)
        ports = free_port(), free_port()
        exporter, prometheus = (f"http://127.0.0.1:{port}" for port in ports)
        logs = folder / "exporter.log", folder / "prometheus.log"
        settings = folder / "prometheus.yml"
        scrape = {
            "job_name": "noria",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [f"127.0.0.1:{ports[0]}"]}],
        }
        settings.write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
        serve = ("-m", "noria.cli", "metrics", "--serve", str(ports[0]), "--every", "1", "--env", "local")
        store = f"--storage.tsdb.path={folder / 'store'}"
        listen = f"--web.listen-address=127.0.0.1:{ports[1]}"
        asked = (PROMETHEUS / "prometheus", f"--config.file={settings}", store, listen)
        with running(sys.executable, *serve, log=logs[0], env=dict(os.environ)), running(*asked, log=logs[1]):
            eventually(lambda: get(f"{exporter}/metrics"), logs[0])
            made = World(exporter, prometheus, shown, specs)
            eventually(lambda: made.query("up == 1"), logs[1])
            yield made


def fill(shown: tuple[Board, ...]) -> None:
    """The same value in every metric, a queue with its dead letters, an alarm that is raised and one that is not."""
    cloudwatch, sqs = boto3.client("cloudwatch"), boto3.client("sqs")
    for queue in (NAMES.queue(REACTION), NAMES.dead_letters):
        sqs.create_queue(QueueName=queue)
    distinct = {series.selector: series for board in shown for series in board.series}
    for series in distinct.values():
        dimensions: Any = [{"Name": name, "Value": value} for name, value in series.dimensions.items()]
        datum: Any = {"MetricName": series.metric, "Dimensions": dimensions, "Value": VALUE}
        cloudwatch.put_metric_data(
            Namespace=series.namespace, MetricData=[datum | {"Timestamp": datetime.now(UTC) - timedelta(seconds=30)}]
        )
    for name in (RAISED, CALM):
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            AlarmDescription=Told(severity=Severity.CRITICAL, runbook="serving").describe("a drill."),
            Namespace="Test",
            MetricName=name,
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
            TreatMissingData="ignore",
        )
    cloudwatch.set_alarm_state(AlarmName=RAISED, StateValue="ALARM", StateReason="a drill")


def test_promtool_finds_nothing_to_say_against_the_metrics(world: World) -> None:
    text = get(f"{world.exporter}/metrics")
    assert text.endswith("# EOF\n")
    checked = subprocess.run(
        [PROMETHEUS / "promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_series_arrives_with_its_value_labels_and_help(world: World) -> None:
    told = json.loads(get(f"{world.prometheus}/api/v1/metadata"))["data"]
    for series in {s.selector: s for board in world.boards for s in board.series}.values():
        ((answer),) = world.query(series.selector)
        assert answer["metric"].items() >= series.labels.items(), series.selector
        if series.statistic != "SampleCount":
            assert float(answer["value"][1]) == pytest.approx(VALUE * series.factor), series.selector
        (described,) = told[series.family]
        assert (described["type"], described["help"], described["unit"]) == ("gauge", series.help, series.unit)


def test_every_query_of_grafana_s_dashboards_finds_something(world: World) -> None:
    for board in world.boards:
        for expression in expressions(board):
            found = world.query(expression)
            if expression.startswith("changes("):  # nothing was deployed
                assert found == []
            elif expression.startswith("noria_alarm_raised"):
                named = [answer["metric"]["alarm"] for answer in found]
                assert named == ([RAISED] if board.model is None else []), expression
            else:
                assert len(found) == 1, expression


def test_dashboards_are_written_for_the_environment_and_each_model(world: World, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "noria.cli", "metrics", "--grafana", tmp_path, "--env", "local"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert written == {board.name: dashboard(board) for board in world.boards}
    assert set(written) == {NAMES.prefix, *(NAMES.model(spec.model) for spec in world.specs)}


def test_the_port_is_open_to_this_machine_alone_and_says_where_the_metrics_are(world: World) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{world.exporter}/")
    assert refused.value.code == 404
