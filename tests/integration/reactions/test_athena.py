"""Windows too large for one machine, described by Athena: its real API, the table and the workgroup of the template."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aws_cdk
import boto3
import pytest
from aws_cdk.assertions import Template
from botocore.exceptions import ClientError

from noria.aws import runs
from noria.aws.athena import Athena, QueryError
from noria.profile import Profile, Source, profile
from stacks.constructs.captured_requests import CapturedRequests
from stacks.foundation import Foundation
from stacks.settings import settings_for
from tests.integration.reactions.place import BUCKET, Place
from tests.integration.reactions.test_monitoring import ROWS, Watched, _watched, even
from tests.unit.engine_data import record
from tests.unit.test_athena import same

MEAN = "SELECT avg(x) FROM predictions"


@pytest.fixture(scope="module")
def database(place: Place) -> str:
    name = place.names.database
    boto3.client("glue").create_database(DatabaseInput={"Name": name})
    return name


@pytest.fixture
def watched(place: Place, tmp_path: Path, database: str) -> Iterator[Watched]:
    watched = _watched(place, tmp_path)
    stack = f"{watched.name}-table"
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(_template(watched)))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    yield watched
    cloudformation.delete_stack(StackName=stack)


def _template(watched: Watched) -> dict[str, Any]:
    """What the monitoring stack has of these resources, without the functions that all of it needs."""
    stack = aws_cdk.Stack()
    key = SimpleNamespace(key_arn="arn:aws:kms:eu-west-1:000000000000:key/1")
    foundation = cast(Foundation, SimpleNamespace(data_bucket_name=BUCKET, key=key))
    CapturedRequests(stack, "Captured", settings=settings_for("local"), spec=watched.spec, foundation=foundation)
    template = Template.from_stack(stack).to_json()
    return {"Resources": template["Resources"]}


def athena_of(watched: Watched, **changes: Any) -> Athena:
    return Athena(
        names=watched.place.names, spec=watched.spec, variant="champion", late=timedelta(minutes=10), **changes
    )


def baseline_of(watched: Watched) -> Profile:
    return Profile.model_validate_json(watched.place.read(f"{watched.spec.model}/baselines/1/baseline.json"))


def put(watched: Watched, *lines: str, folder: Path, variant: str = "champion") -> Path:
    """A file of the hour that begins at noon, in the bucket and on disk."""
    file = folder / f"{variant}.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    key = f"{watched.spec.model}/captured/{watched.name}/{variant}/{watched.noon:%Y/%m/%d/%H}/{variant}.jsonl"
    watched.place.put(key, file.read_text(encoding="utf-8"))
    return file


def test_both_engines_say_the_same_of_nasty_requests(watched: Watched, tmp_path: Path) -> None:
    at = (watched.noon + timedelta(minutes=30)).isoformat().replace("+00:00", "Z")
    rows: list[dict[str, Any]] = [
        {"x": value, "kind": kind}
        for value in (0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, "NaN", "1f", "", None, " 7 ", [1])
        for kind in ("a", "", None, 'it\'s, "x"\nü🙂', "new")
    ]
    answers = [{"prediction": 1, "score": place / len(rows)} for place, _ in enumerate(rows)]
    lines = [
        record("json", rows, answers, time=at),
        record("base64", rows, answers, time=at, binary=True),
        record("csv", '0.5,a\n,"b, ""c"""\n1e3,', "1,0.75\n0,0.25\n1,", time=at),
        record("short", "1", "1,0.5", time=at),
        record("late", rows, answers, time=(watched.noon + timedelta(hours=1)).isoformat()),
        "cut of",
    ]
    file = put(watched, *lines, folder=tmp_path)
    put(watched, record("other", rows, answers, time=at), folder=tmp_path, variant="challenger")
    since, until, cut = watched.noon, watched.noon + timedelta(hours=1), baseline_of(watched).edges
    ours = profile(Source.captured(file, since=since, until=until), watched.spec, cut)
    theirs = athena_of(watched).profile(since, until, cut)
    assert (theirs.rows, theirs.malformed) == (2 * len(rows) + 3, 2)
    assert theirs.features["kind"].new
    same(ours, theirs)


def test_a_window_above_the_limit_is_athenas_and_says_so(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, minutes in enumerate((20, 30)):
        watched.captured(even()[part::2], at=watched.noon + timedelta(minutes=minutes))
    sizes = [
        file["Size"]
        for file in watched.place.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{watched.spec.model}/captured/")[
            "Contents"
        ]
    ]
    monkeypatch.setattr(runs, "LARGEST", sum(sizes) - 1)
    watched.tick(watched.noon + timedelta(minutes=70))
    (entry,) = watched.monitored()
    run = watched.run(entry)
    assert (run.engine, run.window.rows) == ("athena", ROWS)
    # The files of a part of the window are looked at for what no aggregate tells.
    assert run.live is not None
    assert run.live.rows == ROWS // 2
    assert any(f"of the newest {ROWS // 2:,} rows break the data contract" in f.reason for f in run.findings)
    assert run.values["drift"] == 0
    assert watched.metrics()["MonitorFailures"] == [0]

    monkeypatch.setattr(runs, "LARGEST", 10 * sum(sizes))
    watched.captured(even(), at=watched.noon + timedelta(minutes=90))
    watched.tick(watched.noon + timedelta(minutes=130))
    assert watched.run(watched.monitored()[-1]).engine == "duckdb"


def test_where_athena_fails_the_newest_files_are_the_window_and_it_is_counted(
    place: Place, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = _watched(place, tmp_path, monitor={"min_rows": ROWS // 2, "business": {"mean": {"sql": MEAN, "max": 1}}})
    boto3.client("athena").create_work_group(
        Name=place.names.workgroup(watched.spec.model),
        Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/{watched.spec.model}/queries/"}},
    )
    for part, minutes in enumerate((20, 30)):
        watched.captured(even()[part::2], at=watched.noon + timedelta(minutes=minutes))
    keys = place.keys(f"{watched.spec.model}/captured/")
    monkeypatch.setattr(runs, "LARGEST", sum(len(place.read(key)) for key in keys) - 1)
    watched.tick(watched.noon + timedelta(minutes=70))
    run = watched.run(watched.monitored()[0])
    assert (run.engine, run.window.rows) == ("duckdb on the newest files", ROWS // 2)
    assert "Only the newest files of the window were looked at" in run.summary
    reasons = {finding.monitor: finding.reason for finding in run.findings}
    assert "TABLE_NOT_FOUND" in reasons["monitor-failures"]
    assert f"of the newest {ROWS // 2:,} rows" in reasons["invalid"]
    assert run.values["drift"] == 0
    assert "business-mean-above" in run.not_enough
    assert watched.metrics()["MonitorFailures"] == [1]


def test_a_query_that_outlives_its_time_is_stopped_and_named(watched: Watched) -> None:
    with pytest.raises(QueryError, match=r"query [0-9a-f-]{36} on Athena was stopped"):
        athena_of(watched, patience=timedelta(seconds=-1)).profile(
            watched.noon, watched.noon + timedelta(hours=1), baseline_of(watched).edges
        )


def test_a_query_that_fails_says_which_and_why(watched: Watched, place: Place) -> None:
    other = Athena(
        names=place.names,
        spec=watched.spec.model_copy(update={"model": "elsewhere"}),
        variant="champion",
        late=timedelta(),
    )
    boto3.client("athena").create_work_group(
        Name=place.names.workgroup("elsewhere"),
        Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/elsewhere/queries/"}},
    )
    with pytest.raises(QueryError, match=r"query [0-9a-f-]{36} on Athena failed: TABLE_NOT_FOUND"):
        other.profile(watched.noon, watched.noon + timedelta(hours=1), baseline_of(watched).edges)


def test_what_is_no_trino_is_refused_when_it_is_submitted(watched: Watched) -> None:
    with pytest.raises(ClientError, match="SYNTAX_ERROR"):
        boto3.client("athena").start_query_execution(
            QueryString="SELECT 1::DOUBLE", WorkGroup=watched.place.names.workgroup(watched.spec.model)
        )
