"""Late labels are joined with captured predictions once; what cannot be joined is paged once and kept."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest

from lambdas.join_labels.handler import handler as join_labels
from lambdas.start_training.handler import handler as start_training
from lambdas.validate_upload.handler import handler as validate_upload
from noria.aws.captures import Captures
from noria.aws.labelled import Labelled
from noria.aws.ledger import Ledger
from noria.aws.storage import Storage
from noria.deployment import Desired
from noria.labelled import HardCases
from noria.labels import Arrival, LabelsError, LabelsFile, words
from noria.ledger import Fact, Kind
from noria.quality import Quality
from noria.spec import METRICS, FeatureType, Metric, ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place
from tests.integration.reactions.test_training import evaluation as evaluated
from tests.integration.reactions.test_training import granted, pipeline
from tests.integration.reactions.test_uploads import table

TURNS = (timedelta(seconds=number) for number in count(1))
SCORES = (0.9, 0.8, 0.2, 0.6)
LABELS = "inference_id,row,late\nfirst,0,1\nfirst,1,1\nsecond,0,0\nsecond,1,0\nelsewhere,0,1\n"


@pytest.fixture
def spec(place: Place) -> ModelSpec:
    """A model whose champion answered two requests of two rows each, both captured in the same hour."""
    spec = place.model(segments=[], monitor={"min_rows": 2})
    capture(place, spec)
    return spec


TWO_REQUESTS: Mapping[str, Sequence[float]] = {"first": SCORES[:2], "second": SCORES[2:]}


def capture(
    place: Place,
    spec: ModelSpec,
    answered: Mapping[str, Sequence[float]] = TWO_REQUESTS,
    at: datetime | None = None,
) -> None:
    """Requests by their inference ids, with the champion's scores, and the first of them with the challenger's."""
    at = at or datetime.now(UTC)
    name = place.names.model(spec.model)
    lines = [captured(spec, request, scores, at) for request, scores in answered.items()]
    # Data capture may deliver a record again, and a file may be cut off.
    folder = f"{at:%Y/%m/%d/%H}/{at:%M-%S}.jsonl"
    place.put(f"{spec.model}/captured/{name}/champion/{folder}", "\n".join([*lines, lines[-1], "cut of"]))
    place.put(f"{spec.model}/captured/{name}/challenger/{folder}", lines[0])


def captured(spec: ModelSpec, request: str, scores: Sequence[float], answered: datetime) -> str:
    instance = {
        name: (f.values[0] if f.values else "AA") if f.type is FeatureType.CATEGORY else 1
        for name, f in spec.features.items()
    }
    predictions = [{"prediction": int(score >= 0.5), "score": score} for score in scores]
    json_text = {"observedContentType": "application/json", "encoding": "JSON"}
    return json.dumps(
        {
            "captureData": {
                "endpointInput": {
                    **json_text,
                    "mode": "INPUT",
                    "data": json.dumps({"instances": [instance] * len(scores)}),
                },
                "endpointOutput": {**json_text, "mode": "OUTPUT", "data": json.dumps({"predictions": predictions})},
            },
            "eventMetadata": {
                "eventId": f"event of {request}",
                "inferenceId": request,
                "inferenceTime": f"{answered:%Y-%m-%dT%H:%M:%SZ}",
            },
            "eventVersion": "0",
        }
    )


def deliver(place: Place, model: str, name: str, body: str, times: int = 1) -> str:
    """A labels file that comes after a pause."""
    pause(place, model)
    return deliver_at_once(place, model, name, body, times)


def pause(place: Place, model: str) -> None:
    """As long as a model's turn to join takes."""
    key = {"model": {"S": model}, "sk": {"S": "claim#labels"}}
    place.ledger.client.put_item(TableName=place.ledger.table, Item=key | {"until": {"N": "0"}})


def tick(place: Place, model: str) -> None:
    """A turn's, none of which has the time of another."""
    detail = {"model": model, "time": (datetime.now(UTC) + next(TURNS)).isoformat()}
    place.deliver(join_labels, {"source": "noria.schedule", "detail-type": "Join Labels", "detail": detail})


def deliver_at_once(place: Place, model: str, name: str, body: str, times: int = 1) -> str:
    key = f"{model}/labels/{name}"
    version = place.put(key, body)
    for _ in range(times):
        place.deliver(join_labels, place.uploaded(key, version, len(body)))
    return version


def test_labels_are_joined_reported_measured_and_told_once(place: Place, spec: ModelSpec) -> None:
    version = deliver(place, spec.model, "may.csv", LABELS, times=2)
    key = f"{spec.model}/reports/labels-{version}/report.json"
    reports = [key, *(f"{spec.model}/reports/quality/{name}.json" for name in ("hard-cases", "latest"))]
    assert place.keys(f"{spec.model}/reports/") == reports
    assert place.read(reports[-1]) == place.read(key)
    quality = Quality.model_validate_json(place.read(key))
    assert (quality.predictions, quality.labels, quality.matched) == (4, 4, 4)
    brier = sum((score - label) ** 2 for score, label in zip(SCORES, (1, 1, 0, 0), strict=True)) / 4
    assert quality.overall.values[Metric.BRIER] == pytest.approx(brier)
    assert quality.overall.values[Metric.AUC] == 1.0
    (entry,) = place.entries(spec.model)
    assert (entry.kind, entry.subject, entry.details["matched"]) == (Kind.LABELS_JOINED, version, 4)
    assert entry.details["brier"] == pytest.approx(brier)
    listed = boto3.client("cloudwatch").list_metrics(
        Namespace="Noria", Dimensions=[{"Name": "Model", "Value": spec.model}]
    )
    names = {metric["MetricName"] for metric in listed["Metrics"]}
    assert names >= {"Auc", "LogLoss", "Brier", "F1", "Accuracy"}
    assert len(METRICS[spec.task]) == len(quality.overall.metrics)


def test_a_correction_replaces_and_all_words_are_kept(place: Place, spec: ModelSpec) -> None:
    versions = [
        deliver(place, spec.model, "may.csv", LABELS),
        deliver(place, spec.model, "june.csv", "inference_id,row,late\nfirst,0,0\n"),
        deliver(place, spec.model, "may.csv", LABELS.replace("second,0,0", "second,0,1")),
    ]
    told = place.entries(spec.model, Kind.LABELS_JOINED)
    assert [entry.subject for entry in told] == versions
    assert [entry.details["matched"] for entry in told] == [4, 1, 4]
    errors = [[score - label for score, label in zip(SCORES, labels, strict=True)] for labels in TRUTHS]
    assert [entry.details["brier"] for entry in told] == pytest.approx([sum(e**2 for e in of) / 4 for of in errors])
    assert {(i, row): label for variant, i, row, label in joined(place, spec) if variant == "champion"} == {
        ("first", 0): "1",
        ("first", 1): "1",
        ("second", 0): "1",
        ("second", 1): "0",
    }
    (day,) = place.keys(f"{spec.model}/labelled/told/")
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as db:
        file.write(place.read(day))
        file.flush()
        assert db.execute("SELECT count(*) FROM read_parquet(?)", [file.name]).fetchall() == [(5 + 1 + 5,)]


TRUTHS = ((1, 1, 0, 0), (0, 1, 0, 0), (1, 1, 1, 0))
"""What is known after each of the three files: the last repeats `may.csv`, and so speaks of the first row again."""


def joined(place: Place, spec: ModelSpec) -> list[tuple[str, str, int, str]]:
    """Rows of the joined table: variant, inference id, row, label."""
    rows = []
    for key in place.keys(f"{spec.model}/labelled/joined/"):
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as db:
            file.write(place.read(key))
            file.flush()
            rows += db.execute("SELECT variant, inference_id, row, target FROM read_parquet(?)", [file.name]).fetchall()
    return rows


def test_every_variant_that_answered_is_joined_and_the_champion_alone_is_measured(
    place: Place, spec: ModelSpec
) -> None:
    version = deliver(place, spec.model, "may.csv", LABELS)
    assert {(variant, i, row): label for variant, i, row, label in joined(place, spec)} == {
        ("champion", "first", 0): "1",
        ("champion", "first", 1): "1",
        ("champion", "second", 0): "0",
        ("champion", "second", 1): "0",
        ("challenger", "first", 0): "1",
        ("challenger", "first", 1): "1",
    }
    quality = Quality.model_validate_json(place.read(f"{spec.model}/reports/labels-{version}/report.json"))
    assert quality.matched == 4


def die_at_the_ledger(place: Place, event: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class DiedError(Exception):
        pass

    def die(*_: object) -> None:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", die)
        with pytest.raises(DiedError):
            place.deliver(join_labels, event)


def test_a_death_before_the_ledger_heals_at_the_next_delivery(
    place: Place, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{spec.model}/labels/may.csv"
    event = place.uploaded(key, place.put(key, LABELS))
    die_at_the_ledger(place, event, monkeypatch)
    made = place.keys(f"{spec.model}/labelled/"), place.keys(f"{spec.model}/incoming/"), joined(place, spec)
    place.deliver(join_labels, event)
    again = place.keys(f"{spec.model}/labelled/"), place.keys(f"{spec.model}/incoming/"), joined(place, spec)
    assert made == again
    assert place.kinds(spec.model) == [Kind.LABELS_JOINED]


def test_a_join_that_died_in_its_turn_after_all_was_written_is_told_of_when_the_turn_is_over(
    place: Place, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{spec.model}/labels/may.csv"
    event = place.uploaded(key, place.put(key, LABELS))
    die_at_the_ledger(place, event, monkeypatch)
    # Who dies, unlike who fails, does not give the turn back.
    with place.ledger.claim(spec.model, "labels", now=datetime.now(UTC), lasting=timedelta(minutes=10)):
        pass
    place.deliver(join_labels, event)
    assert place.entries(spec.model) == []
    pause(place, spec.model)
    tick(place, spec.model)
    (entry,) = place.entries(spec.model)
    assert (entry.details["matched"], entry.details["versions"]) == (4, [event["detail"]["object"]["version-id"]])
    assert len(place.keys(f"{spec.model}/incoming/")) == 1


def test_files_that_are_joined_at_the_same_time_lose_no_label(place: Place, spec: ModelSpec, tmp_path: Path) -> None:
    rows = [("first", 0), ("first", 1), ("second", 0), ("second", 1)]
    storage = Storage(bucket=BUCKET)
    captures = Captures(model=spec.model, endpoint=place.names.model(spec.model), storage=storage)
    now = datetime.now(UTC)

    def join_one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        inference_id, row = rows[number]
        file = folder / "labels.csv"
        file.write_text(f"inference_id,row,late\n{inference_id},{row},{number % 2}\n")
        labelled = Labelled(spec=spec, captures=captures, storage=storage)
        session = labelled.session(folder, now=now)
        said = folder / "said.parquet"
        words(LabelsFile(file, file.name), spec, Arrival(now, f"version {number}"), to=said)
        assert session.find(said, 1) == 1
        labelled.keep(said, now.date(), folder)
        session.join()

    with ThreadPoolExecutor(max_workers=len(rows)) as pool:
        list(pool.map(join_one, range(len(rows))))
    assert {(i, row): label for variant, i, row, label in joined(place, spec) if variant == "champion"} == {
        rows[number]: str(number % 2) for number in range(len(rows))
    }


# --- what can be judged


def test_labels_that_come_early_judge_nothing_until_all_before_them_have_theirs(place: Place) -> None:
    """Good outcomes are known at once: until the bad ones are, the model looks better than it is."""
    spec = place.model(segments=[], monitor={"min_rows": 2})
    now = datetime.now(UTC)
    for place_in_time, request in enumerate(("bad", "good", "better")):
        capture(place, spec, {request: [0.3]}, at=now - timedelta(minutes=30 - place_in_time))
    deliver(place, spec.model, "good.csv", "inference_id,late\nbad,1\nbetter,0\n")
    (early,) = place.entries(spec.model)
    assert early.details["matched"] == 2
    assert early.details["brier"] == pytest.approx(0.49)
    assert early.details["judged_until"] == f"{now - timedelta(minutes=29):%Y-%m-%dT%H:%M:%S+00:00}"
    deliver(place, spec.model, "bad.csv", "inference_id,late\ngood,1\n")
    _, late = place.entries(spec.model)
    assert late.details["brier"] == pytest.approx((0.49 + 0.49 + 0.09) / 3)


def test_where_nothing_can_be_judged_yet_the_ledger_says_why(place: Place, spec: ModelSpec) -> None:
    deliver(place, spec.model, "may.csv", "inference_id,row,late\nfirst,0,1\n")
    (entry,) = place.entries(spec.model)
    (reason,) = as_list(entry.details["reasons"])
    assert "younger than 7d (monitor.labels.within)" in reason
    assert measured(place, spec) == {}


def test_what_cannot_be_read_is_counted_once_and_only_from_when_the_version_is_live(place: Place) -> None:
    """Each captured file has one line that cannot be read; that of midnight's hour is looked at for two days."""
    spec = place.model(segments=[], gates={}, monitor={"min_rows": 2})
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=5, microsecond=0)
    live(place, spec, registered=0.9, at=midnight - timedelta(hours=2))
    for number, hours in enumerate((-3, -1, 0)):
        capture(place, spec, {f"r{number}": [0.2, 0.7]}, at=midnight + timedelta(hours=hours))
    labels = "".join(f"r{number},{row},{row}\n" for number in range(3) for row in range(2))
    version = deliver(place, spec.model, "may.csv", f"inference_id,row,late\n{labels}")
    quality = Quality.model_validate_json(place.read(f"{spec.model}/reports/labels-{version}/report.json"))
    assert (quality.predictions, quality.matched, quality.unmatched_labels, quality.malformed) == (4, 4, 0, 2)


def test_a_request_of_two_days_is_counted_and_learnt_from_once(place: Place) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=5, microsecond=0)
    capture(place, spec, {"again": [0.2, 0.7]}, at=midnight - timedelta(minutes=1))
    body = "inference_id,row,late\nagain,0,0\nagain,1,1\n"
    deliver(place, spec.model, "may.csv", body)
    capture(place, spec, {"again": [0.3, 0.8], "other": [0.1]}, at=midnight)
    deliver(place, spec.model, "june.csv", body + "other,0,0\nunknown,0,0\n")
    _, entry = place.entries(spec.model)
    assert (entry.details["labels"], entry.details["matched"]) == (4, 3)
    assert learnt(place, spec) == {f"{midnight - timedelta(days=1):%Y-%m-%d}": 2, f"{midnight:%Y-%m-%d}": 1}


def learnt(place: Place, spec: ModelSpec) -> dict[str, int]:
    """Rows of the newest training data of each day of labels."""
    newest = {key.split("/")[-2]: key for key in sorted(place.keys(f"{spec.model}/incoming/labelled/"))}
    rows = {}
    for day, key in newest.items():
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as db:
            file.write(place.read(key))
            file.flush()
            ((rows[day],),) = db.execute("SELECT count(*) FROM read_parquet(?)", [file.name]).fetchall()
    return rows


# --- more than one join takes


def test_a_look_back_goes_on_where_it_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, now = place.model(segments=[], monitor={"min_rows": 2, "labels": {"within": "1h"}}), datetime.now(UTC)
    capture(place, spec, at=now)
    for days in (4, 6):
        capture(place, spec, {f"old{days}": [0.9]}, at=now - timedelta(days=days))
    monkeypatch.setattr("noria.aws.labelled.LOOKING", timedelta(0))
    deliver(place, spec.model, "may.csv", "inference_id,late\nfirst,1\nold4,1\nold6,0\n")
    for _ in range(8):
        pause(place, spec.model)
        tick(place, spec.model)
    told = [(entry.details["matched"], entry.details["complete"]) for entry in place.entries(spec.model)]
    # A day at each join, after today and yesterday: two, three and four days ago, then five, then six.
    assert sum(matched for matched, _ in told if isinstance(matched, int)) == 3
    assert [complete for _, complete in told] == [False] * (len(told) - 1) + [True]
    assert {i for _, i, _, _ in joined(place, spec)} == {"first", "old4", "old6"}
    before = place.entries(spec.model)
    tick(place, spec.model)
    assert place.entries(spec.model) == before


def test_what_comes_while_others_are_looked_for_is_looked_for_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2, "labels": {"within": "1h"}})
    capture(place, spec, {"old3": [0.9]}, at=datetime.now(UTC) - timedelta(days=3))
    monkeypatch.setattr("noria.aws.labelled.LOOKING", timedelta(0))
    monkeypatch.setattr("noria.aws.labelled.LOOK_BACK", timedelta(days=5))
    monkeypatch.setattr("noria.aws.labelled.LATE", timedelta(0))  # so that no word waits just because it is new
    deliver(place, spec.model, "may.csv", "inference_id,late\nunknown,1\n")
    for _ in range(2):
        pause(place, spec.model)
        tick(place, spec.model)
    deliver(place, spec.model, "june.csv", "inference_id,late\nold3,1\n")
    for _ in range(3):
        pause(place, spec.model)
        tick(place, spec.model)
    assert {i for _, i, _, _ in joined(place, spec)} == {"old3"}


def test_labels_about_what_is_too_much_of_a_day_to_be_read_are_told_of_as_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    noon = datetime.now(UTC).replace(hour=12) - timedelta(days=3)
    for minute, request in enumerate(("first", "later")):
        capture(place, spec, {request: [0.9]}, at=noon.replace(minute=minute))
    size = max(len(place.read(key)) for key in place.keys(f"{spec.model}/captured/"))
    monkeypatch.setattr("noria.aws.labelled.MOST_CAPTURED_BYTES", size * 3 // 2)
    deliver(place, spec.model, "may.csv", "inference_id,late\nfirst,1\n")
    for _ in range(3):
        pause(place, spec.model)
        tick(place, spec.model)
    told = [(entry.details["complete"], entry.details["given_up"]) for entry in place.entries(spec.model)]
    # Which turn looks at that day alone depends on when the words came: none of them calls it complete.
    assert {complete for complete, _ in told} == {False}
    assert 1 in {given_up for _, given_up in told}


def test_more_labels_than_can_be_read_are_told_of_and_judge_nothing_that_they_are_about(
    place: Place, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(place, spec.model, "may.csv", LABELS)
    monkeypatch.setattr("noria.aws.labelled.MOST_TOLD_BYTES", 1)
    deliver(place, spec.model, "june.csv", LABELS)
    whole, cut = place.entries(spec.model)
    assert (whole.details["complete"], cut.details["complete"]) == (True, False)
    assert "brier" in whole.details
    assert "brier" not in cut.details
    storage = Storage(bucket=BUCKET)
    captures = Captures(model=spec.model, endpoint=place.names.model(spec.model), storage=storage)
    with tempfile.TemporaryDirectory() as folder, pytest.raises(LabelsError, match="cannot be read with them"):
        Labelled(spec=spec, captures=captures, storage=storage).labels(datetime.now(UTC), Path(folder))


# --- by event


def test_labels_of_an_event_become_one_file_that_goes_the_way_of_all_files(place: Place, spec: ModelSpec) -> None:
    labels = [{"inference_id": "first", "row": 0, "label": 1}, {"inference_id": "second", "row": 1, "label": False}]
    detail = {"model": spec.model, "labels": labels, "told_at": "2026-11-21T09:58:00+00:00"}
    event = place.event("noria", "Labels Told", detail)
    for _ in range(2):
        place.deliver(join_labels, event)
    (key,) = place.keys(f"{spec.model}/labels/")
    assert key == f"{spec.model}/labels/event-{event['id']}.csv"
    assert place.read(key).decode().splitlines() == [
        "inference_id,row,late,labelled_at",
        "first,0,1,2026-11-21T09:58:00+00:00",
        "second,1,False,2026-11-21T09:58:00+00:00",
    ]
    assert place.entries(spec.model) == []  # nothing is joined until the file's own event comes


# --- late, and too early


def test_labels_that_come_before_what_they_are_about_is_captured_are_joined_later(place: Place) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    version = deliver(place, spec.model, "may.csv", LABELS.replace("elsewhere,0,1\n", ""))
    (entry,) = place.entries(spec.model)
    assert (entry.subject, entry.details["matched"]) == (version, 0)
    assert place.delayed("join-labels") >= 1
    capture(place, spec)
    for _ in range(2):
        pause(place, spec.model)
        tick(place, spec.model)
    _, again = place.entries(spec.model)
    assert again.details["auc"] == 1.0
    assert len(joined(place, spec)) == 6


def test_what_all_labels_are_about_is_looked_for_no_more(place: Place, spec: ModelSpec) -> None:
    deliver(place, spec.model, "may.csv", LABELS.replace("elsewhere,0,1\n", ""))
    pause(place, spec.model)
    before = place.delayed("join-labels"), place.entries(spec.model)
    tick(place, spec.model)
    assert (place.delayed("join-labels"), place.entries(spec.model)) == before


# --- many, one by one


def test_outcomes_that_are_told_one_by_one_are_kept_at_once_and_joined_together(place: Place, spec: ModelSpec) -> None:
    before = place.delayed("join-labels")
    told = [("first", 0, 1), ("first", 1, 1), ("second", 0, 0), ("second", 1, 0)]
    versions = [
        deliver_at_once(place, spec.model, f"{number}.csv", f"inference_id,row,late\n{inference_id},{row},{label}\n")
        for number, (inference_id, row, label) in enumerate(told)
    ]
    (first,) = place.entries(spec.model)
    assert (first.subject, first.details["labels"], first.details["matched"]) == (versions[0], 1, 1)
    assert len(joined(place, spec)) == 2  # of champion and challenger
    assert len(place.keys(f"{spec.model}/incoming/")) == 1
    assert place.delayed("join-labels") == before + 1
    pause(place, spec.model)
    tick(place, spec.model)
    _, second = place.entries(spec.model)
    assert (second.details["labels"], second.details["matched"]) == (3, 3)
    assert {(i, row, int(label)) for variant, i, row, label in joined(place, spec) if variant == "champion"} == {*told}
    assert len(place.keys(f"{spec.model}/incoming/")) == 2


def test_what_somebody_died_of_in_their_turn_is_joined_by_the_next_tick_or_file(place: Place, spec: ModelSpec) -> None:
    with place.ledger.claim(spec.model, "labels", now=datetime.now(UTC), lasting=timedelta(minutes=10)):
        pass  # the claim of whoever dies is not given back
    deliver_at_once(place, spec.model, "may.csv", "inference_id,row,late\nfirst,0,1\n")
    tick(place, spec.model)  # too early: the turn is not over
    assert place.entries(spec.model) == []
    deliver(place, spec.model, "june.csv", "inference_id,row,late\nsecond,0,0\n")
    (entry,) = place.entries(spec.model)
    assert (entry.details["labels"], entry.details["matched"]) == (2, 2)


def test_a_file_within_a_turn_is_refused_as_any_other(place: Place, spec: ModelSpec) -> None:
    deliver(place, spec.model, "may.csv", LABELS)
    deliver_at_once(place, spec.model, "june.csv", "inference_id,row,late\nfirst,0,yes\n")
    assert place.kinds(spec.model) == [Kind.LABELS_JOINED, Kind.LABELS_REFUSED]


# --- what monitors say


def test_too_few_labels_publish_nothing_and_the_ledger_says_why(place: Place) -> None:
    spec = place.model(segments=[])
    capture(place, spec)
    deliver(place, spec.model, "may.csv", LABELS)
    (entry,) = place.entries(spec.model)
    assert entry.details["breached"] == []
    assert entry.details["not_enough"] == ["quality", "calibration"]
    (reason,) = as_list(entry.details["reasons"])
    assert "4 predictions with a label are fewer than 500 (monitor.min_rows)" in reason
    assert measured(place, spec) == {}


def test_a_live_version_is_measured_against_its_registration_since_it_is_live(place: Place) -> None:
    spec = place.model(segments=[], gates={}, monitor={"min_rows": 100, "quality": 0.1})
    now = datetime.now(UTC)
    capture(place, spec, {f"old{n}": [0.9] for n in range(150)}, at=now - timedelta(minutes=50))
    live(place, spec, registered=0.95, at=now - timedelta(minutes=40))
    capture(place, spec, {f"new{n}": [n / 150] for n in range(150)}, at=now - timedelta(minutes=30))
    labels = [f"old{n},0" for n in range(150)] + [f"new{n},{(n * 7) % 2}" for n in range(150)]
    version = deliver(place, spec.model, "may.csv", "\n".join(["inference_id,late", *labels]))
    quality = Quality.model_validate_json(place.read(f"{spec.model}/reports/labels-{version}/report.json"))
    assert (quality.matched, quality.predictions) == (150, 150)
    assert quality.registration is not None
    assert quality.registration.registered.value == 0.95
    assert quality.registration.value == pytest.approx((0.95 - quality.overall.values[Metric.AUC]) / 0.95)
    (entry,) = place.entries(spec.model, Kind.LABELS_JOINED)
    assert entry.details["matched"] == 300
    assert "quality" in as_list(entry.details["breached"])
    assert measured(place, spec)["QualityLoss"] == pytest.approx(quality.registration.value)


def as_list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def measured(place: Place, spec: ModelSpec) -> dict[str, float]:
    """The newest value of each metric of the model that has no other dimension."""
    cloudwatch: Any = boto3.client("cloudwatch")
    now = datetime.now(UTC)
    own = [{"Name": "Model", "Value": spec.model}]
    names = {
        metric["MetricName"]
        for metric in cloudwatch.list_metrics(Namespace="Noria", Dimensions=own)["Metrics"]
        if metric["Dimensions"] == own
    }
    return {
        name: cloudwatch.get_metric_statistics(
            Namespace="Noria",
            MetricName=name,
            Dimensions=own,
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=7200,
            Statistics=["Maximum"],
        )["Datapoints"][0]["Maximum"]
        for name in names
    }


def live(place: Place, spec: ModelSpec, *, registered: float, at: datetime) -> None:
    """A package that is live since `at`, with the first metric that it was registered with."""
    evaluation = json.loads(evaluated(passed=True))
    evaluation["metrics"]["auc"] = {"value": registered, "low": registered - 0.01, "high": registered + 0.01}
    key = f"{spec.model}/runs/one/evaluation.json"
    place.put(key, json.dumps(evaluation))
    name = place.names.model(spec.model)
    place.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    package = place.sagemaker.create_model_package(
        ModelPackageGroupName=name,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={"noria:evaluation": f"s3://{BUCKET}/{key}"},
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/nothing"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    desired = Desired(package=package)
    details = desired.details
    place.ledger.record(
        Fact(model=spec.model, kind=Kind.DEPLOYED, subject=package, at=at, summary="live", details=details)
    )


# --- what is learnt of them


def test_labels_become_training_data_that_corrections_supersede(place: Place, spec: ModelSpec) -> None:
    for name, label in (("may", 1), ("june", 1), ("july", 0), ("august", 1), ("september", 0)):
        body = f"inference_id,row,late\nfirst,0,{label}\n"
        deliver(place, spec.model, f"{name}.csv", LABELS if name == "may" else body)
    made = place.keys(f"{spec.model}/incoming/labelled/")
    assert len(made) == 4  # June says what May has said
    for key in made:
        version = place.s3.head_object(Bucket=BUCKET, Key=key)["VersionId"]
        place.deliver(validate_upload, place.uploaded(key, version))
    accepted = place.entries(spec.model, Kind.DATASET_ACCEPTED)
    assert [(entry.details["origin"], entry.details["rows"]) for entry in accepted] == [("labels", 4)] * 4
    uploaded_csv = f"{spec.model}/incoming/january.csv"
    place.deliver(validate_upload, place.uploaded(uploaded_csv, place.put(uploaded_csv, table(spec))))
    uploaded = place.entries(spec.model, Kind.DATASET_ACCEPTED)[-1]
    assert uploaded.details["origin"] == "upload"
    pipeline(place, spec)
    place.deliver(start_training, granted(place, spec))
    (started,) = place.entries(spec.model, Kind.TRAINING_STARTED)
    assert set(as_list(started.details["datasets"])) == {accepted[3].subject, uploaded.subject}
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as db:
        file.write(place.read(f"{spec.model}/datasets/{accepted[3].subject}/data.parquet"))
        file.flush()
        labels = db.execute("SELECT late FROM read_parquet(?) ORDER BY ts, late", [file.name]).fetchall()
    assert sorted(labels) == [("0",), ("0",), ("0",), ("1",)]


def test_labels_are_not_learnt_from_where_the_spec_says_so(place: Place) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2, "labels": {"train": False}})
    capture(place, spec)
    deliver(place, spec.model, "may.csv", LABELS)
    assert place.keys(f"{spec.model}/incoming/") == []
    assert len(joined(place, spec)) == 6


# --- what people should look at


def test_no_value_of_a_sensitive_segment_is_written_to_a_report(place: Place) -> None:
    described = place.model().model_dump(mode="json")
    described["features"]["origin"]["sensitive"] = True
    spec = place.model(segments=["origin", "carrier"], monitor={"min_rows": 2}, features=described["features"])
    capture(place, spec, {f"r{n}": [n / 60] for n in range(60)})
    version = deliver(
        place, spec.model, "may.csv", "inference_id,late\n" + "".join(f"r{n},{n % 2}\n" for n in range(60))
    )
    for name in (f"labels-{version}/report", "quality/latest", "quality/hard-cases"):
        assert "EWR" not in place.read(f"{spec.model}/reports/{name}.json").decode()
    quality = Quality.model_validate_json(place.read(f"{spec.model}/reports/quality/latest.json"))
    assert {segment: [*values] for segment, values in quality.segments.items()} == {
        "origin": ["value 1"],
        "carrier": ["AA"],
    }
    assert [*quality.fairness["origin"].values] == ["value 1"]


def test_hard_cases_are_listed_beside_the_report(place: Place, spec: ModelSpec) -> None:
    deliver(place, spec.model, "may.csv", "inference_id,row,late\nfirst,0,0\nfirst,1,1\n")
    found = HardCases.model_validate_json(place.read(f"{spec.model}/reports/quality/hard-cases.json"))
    assert [(case.inference_id, case.row) for case in found.unsure] == [("second", 1), ("second", 0)]
    assert [case.measure for case in found.unsure] == pytest.approx([0.6, 0.8])
    (wrong,) = found.surprising
    assert (wrong.inference_id, wrong.row, wrong.label) == ("first", 0, "0")
    assert wrong.measure == pytest.approx(0.1)
    assert set(wrong.features) == set(spec.features)


# --- what cannot be joined


def test_labels_of_nothing_that_was_captured_say_so(place: Place) -> None:
    model = place.model().model
    deliver(place, model, "may.csv", LABELS)
    (entry,) = place.entries(model)
    assert (entry.kind, entry.details["matched"]) == (Kind.LABELS_JOINED, 0)
    assert "no auc" in entry.summary


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("may.csv", "inference_id,row,delayed\nfirst,0,1\n", "column 'late' is missing"),
        ("may.csv", LABELS + "first,0,0\n", "'first row 0'"),
        ("may.csv", "inference_id,row,late\nfirst,0,yes\nsecond,0,no\n", "holds no, yes"),
        ("may.parquet", LABELS, "the content does not"),
        (f"may.{'x' * 400}", LABELS, "neither .csv nor .parquet"),
        ("may.csv", "", "the file is empty"),
    ],
    ids=["column", "repeated", "words", "parquet", "name", "empty"],
)
def test_bad_labels_are_paged_once_and_kept(place: Place, spec: ModelSpec, name: str, body: str, problem: str) -> None:
    version = deliver(place, spec.model, name, body, times=2)
    (entry,) = place.entries(spec.model)
    assert (entry.kind, entry.subject) == (Kind.LABELS_REFUSED, version)
    assert problem in entry.summary
    (page,) = place.notices(spec.model)
    assert problem in page
    assert place.read(f"{spec.model}/labels/{name}").decode() == body
    assert place.keys(f"{spec.model}/reports/") == []


def test_a_file_of_other_classes_that_came_before_anybody_could_know_is_left_out_and_named(place: Place) -> None:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    version = deliver(place, spec.model, "early.csv", "inference_id,row,late\nfirst,0,yes\nsecond,0,no\n")
    capture(place, spec)
    deliver(place, spec.model, "may.csv", LABELS)
    for _ in range(2):
        pause(place, spec.model)
        tick(place, spec.model)
    (refused,) = place.entries(spec.model, Kind.LABELS_REFUSED)
    assert (refused.subject, refused.details["key"]) == (version, f"{spec.model}/labels/early.csv")
    assert "early.csv: column 'late' holds no, yes where the model predicts 0, 1" in refused.summary
    (page,) = place.notices(spec.model)
    assert "early.csv" in page
    last = place.entries(spec.model, Kind.LABELS_JOINED)[-1]
    assert last.details["auc"] == 1.0
    assert {label for _, _, _, label in joined(place, spec)} == {"0", "1"}


def test_a_guess_of_what_classes_are_called_never_replaces_what_was_predicted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, now = place.model(segments=[], monitor={"min_rows": 2}), datetime.now(UTC)
    monkeypatch.setattr("noria.aws.labelled.LATE", timedelta(0))  # so that no word waits just because it is new
    known = []
    deliver(place, spec.model, "early.csv", "inference_id,late\nlow,0\nx,late\ny,late\nz,late\n")
    capture(place, spec, {"low": [0.1]}, at=now)
    # All that the first and the last are about was predicted today, when the champion said 0 alone.
    for name, body in {"may": "low,0", "june": "low,0\nhigh,1", "july": "low,0"}.items():
        deliver(place, spec.model, f"{name}.csv", f"inference_id,late\n{body}\n")
        known.append(json.loads(place.read(f"{spec.model}/labelled/classes.json")))
        capture(place, spec, {"high": [0.9]}, at=now - timedelta(days=3))
    assert known == [{"0": True, "late": False}, {"0": True, "1": True}, {"0": True, "1": True}]
    refused = place.entries(spec.model, Kind.LABELS_REFUSED)
    assert {entry.details["key"] for entry in refused} == {f"{spec.model}/labels/early.csv"}


def test_a_file_that_is_too_large_is_paged_before_it_is_fetched(
    place: Place, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambdas.join_labels.handler.LARGEST", 10)
    deliver(place, spec.model, "may.csv", LABELS)
    (entry,) = place.entries(spec.model)
    assert entry.kind is Kind.LABELS_REFUSED
    assert f"may.csv: the file has {len(LABELS)} bytes, and at most 10 are read at once: split it" in entry.summary


def test_keys_with_empty_parts_are_labels_of_a_model_or_nobodys(place: Place, spec: ModelSpec) -> None:
    deliver(place, spec.model, "/may.csv", LABELS)
    assert place.kinds(spec.model) == [Kind.LABELS_JOINED]
    key = "/labels/may.csv"
    place.deliver(join_labels, place.uploaded(key, place.put(key, LABELS), len(LABELS)))


def test_labels_of_a_model_that_nobody_described_are_paged(place: Place) -> None:
    deliver(place, "nobodys-model", "may.csv", LABELS)
    assert place.kinds("nobodys-model") == [Kind.LABELS_REFUSED]
    assert "no model is called 'nobodys-model'" in place.notices("nobodys-model")[0]


def test_a_folder_made_in_a_console_is_no_labels_file(place: Place) -> None:
    model = place.model().model
    key = f"{model}/labels/2013/"
    place.deliver(join_labels, place.uploaded(key, place.put(key, b""), size=0))
    assert place.kinds(model) == []


def test_a_deeper_folder_of_that_name_is_no_place_for_labels(place: Place) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/labels/january.csv"
    place.deliver(join_labels, place.uploaded(key, place.put(key, "inference_id,late\na,1\n")))
    assert place.entries(spec.model) == []
    assert place.told(spec.model) == []
