"""What CloudWatch Logs makes of log lines: Powertools writes them, botocore's model says what CloudWatch takes."""

import json
import random
import re
import time
from collections import Counter
from itertools import count
from typing import Any

import botocore.session
import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricResolution, MetricUnit

from local import ministack
from local.embedded_metrics import UNIT, Datum, NoMetrics, data_in
from local.metric_math import Sample

NOW = 1_790_000_000.0
_names = (f"Metric{number}" for number in count())


def document(**changes: Any) -> str:
    directive = {"Namespace": "Noria", "Dimensions": [["Model"]], "Metrics": [{"Name": "Done", "Unit": "Count"}]}
    metadata = {"Timestamp": int(NOW * 1000), "CloudWatchMetrics": [directive | changes.pop("directive", {})]}
    told = {"_aws": metadata | changes.pop("metadata", {}), "Model": "late", "Done": 1} | changes
    return json.dumps({name: value for name, value in told.items() if value is not ...})


def test_what_powertools_writes_is_read_as_it_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(11)  # noqa: S311
    meant: list[tuple[str, str, dict[str, str], tuple[float, ...]]] = []
    for number in range(40):
        metrics = EphemeralMetrics(namespace="Noria", service="noria")
        dimensions = {f"Dimension{n}": f"value {number} ü" for n in range(chance.randint(1, 8))}
        for dimension, text in dimensions.items():
            metrics.add_dimension(name=dimension, value=text)
        for name in (f"Metric{n}" for n in range(chance.randint(1, 5))):
            unit = chance.choice(list(MetricUnit))
            values = tuple(float(chance.randint(0, 9)) for _ in range(chance.randint(1, 4)))
            for value in values:
                metrics.add_metric(name=name, unit=unit, value=value, resolution=MetricResolution.High)
            meant.append((name, unit.value, {**dimensions, "service": "noria"}, values))
        metrics.flush_metrics()
    lines = capsys.readouterr().out.splitlines()
    now = time.time()
    found = [datum for line in lines for datum in data_in(line, now=now)]
    assert [(d.name, d.unit, d.dimensions, d.values) for d in found] == meant
    assert {d.namespace for d in found} == {"Noria"}
    assert all(now - 60 < datum.at <= now for datum in found)


def test_units_are_cloudwatch_s() -> None:
    model = botocore.session.get_session().get_service_model("cloudwatch")
    known = set(model.shape_for("StandardUnit").metadata["enum"])
    near = {unit.lower() for unit in known} | {f"{unit}/Second" for unit in known} | {"Kilo", "", "Count/Minute"}
    assert {unit for unit in known | near if re.fullmatch(UNIT, unit)} == known


def test_a_value_goes_to_each_set_of_dimensions() -> None:
    line = document(directive={"Dimensions": [["Model", "Kind"], ["Model"], []]}, Kind="a", Done=[1, 2.5])
    assert data_in(line, now=NOW) == [
        Datum("Noria", "Done", "Count", dimensions, (1.0, 2.5), NOW)
        for dimensions in ({"Model": "late", "Kind": "a"}, {"Model": "late"}, {})
    ]


def test_other_lines_have_no_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    Logger(service="lines-alone").info("told", extra={"line": document(), "_aws": {"Timestamp": 1}})
    (logged,) = capsys.readouterr().out.splitlines()
    assert '"_aws"' in logged
    for line in (logged, "", "START RequestId: 1", 'a "_aws" in words', json.dumps(["_aws"]), '{"a": {"_aws": {}}}'):
        assert data_in(line, now=NOW) == []


@pytest.mark.parametrize(
    "line",
    [
        document(directive={"Dimensions": []}),
        document(directive={"Dimensions": [["Model", "Nowhere"]]}),
        document(directive={"Dimensions": [[f"d{n}" for n in range(31)]]}, **{f"d{n}": "x" for n in range(31)}),
        document(directive={"Metrics": [{"Name": "Nowhere"}]}),
        document(directive={"Metrics": [{"Name": "Done", "Unit": "Dozen"}]}),
        document(directive={"Namespace": ""}),
        document(metadata={"Timestamp": int((NOW - 15 * 86400) * 1000)}),
        document(metadata={"Timestamp": int((NOW + 3 * 3600) * 1000)}),
        document(metadata={"Timestamp": "now"}),
        document(Model=7),
        document(Model="x" * 1025),
        document(Done="1"),
        document(Done=True),
        document(Done=float("nan")),
        document(Done=[1] * 101),
    ],
)
def test_of_a_document_that_is_wrong_nothing_is_taken(line: str) -> None:
    with pytest.raises(NoMetrics) as refused:
        data_in(line, now=NOW)
    assert refused.value.counted == "EMFValidationErrors"


@pytest.mark.parametrize("line", [document()[:-1], document() + " and more", '{"_aws"' + '{"a":' * 100_000])
def test_what_is_no_json_is_told_apart(line: str) -> None:
    with pytest.raises(NoMetrics) as refused:
        data_in(line, now=NOW)
    assert refused.value.counted == "EMFParsingErrors"


def test_values_count_at_their_own_time_in_whatever_order_they_come() -> None:
    name, minute = next(_names), 60.0
    chance = random.Random(5)  # noqa: S311
    told = [(NOW - chance.randint(0, 40) * 20, float(chance.randint(1, 3))) for _ in range(500)]
    for at, value in told:
        ministack.put_metric("Noria", name, Counter({value: 1}), unit="Count", dimensions={}, at=at)
    kept = [Sample.from_point(point) for point in ministack.metric_points("Noria", name, {}, 0)]
    assert [sample.timestamp for sample in kept] == sorted(sample.timestamp for sample in kept)
    by_minute: Counter[float] = Counter()
    for sample in kept:
        by_minute[sample.timestamp // minute] += sample.total  # type: ignore[assignment]
    expected: Counter[float] = Counter()
    for at, value in told:
        expected[at // minute] += value  # type: ignore[assignment]
    assert by_minute == expected
    assert len(kept) < len(told) / 4
