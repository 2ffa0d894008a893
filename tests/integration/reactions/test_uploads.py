"""Uploads become datasets or go to quarantine; nothing is lost, and nothing happens twice."""

import csv
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.validate_upload import handler as function
from lambdas.validate_upload.handler import handler as validate_upload
from local.cloud import ACCOUNT
from noria.contract import Manifest, Report
from noria.deployment import Desired
from noria.ledger import Fact, Kind
from noria.profile import Source, profile
from noria.spec import FeatureType, ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Context, Place


def table(spec: ModelSpec, rows: int = 40, **changes: str) -> bytes:
    """A CSV that keeps the contract of `spec`, but for `changes` of whole columns."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=spec.columns)
    writer.writeheader()
    for number in range(rows):
        row = {name: _value(feature.type, feature.values, feature.min) for name, feature in spec.features.items()}
        row |= {spec.time: (start + timedelta(hours=number)).isoformat(), spec.target: str(number % 2)}
        writer.writerow(row | changes)
    return text.getvalue().encode()


def _value(kind: FeatureType, values: tuple[str, ...] | None, least: float | None) -> str:
    if kind is FeatureType.CATEGORY:
        return values[0] if values else "AA"
    return str(int(least or 1))


def upload(place: Place, spec: ModelSpec, name: str, body: bytes) -> str:
    key = f"{spec.model}/incoming/{name}"
    version = place.put(key, body)
    place.deliver(validate_upload, place.uploaded(key, version, len(body)))
    return version


def test_a_good_file_becomes_a_dataset_addressed_by_its_bytes(place: Place) -> None:
    spec = place.model()
    body = table(spec)
    sha = hashlib.sha256(body).hexdigest()
    version = upload(place, spec, "january.csv", body)
    folder = f"{spec.model}/datasets/{sha}"
    assert place.read(f"{folder}/data.csv") == body
    manifest = Manifest.model_validate_json(place.read(f"{folder}/manifest.json"))
    assert (manifest.rows, manifest.key, manifest.version_id) == (40, f"{folder}/data.csv", version)
    (entry,) = place.entries(spec.model)
    assert (entry.kind, entry.subject, entry.details["bytes"]) == (Kind.DATASET_ACCEPTED, sha, len(body))
    (event,) = place.events(spec.model, "Dataset Accepted")
    assert (event["dataset"], event["rows"]) == (sha, 40)


def test_who_sent_a_file_and_when_is_kept_with_what_became_of_it(place: Place) -> None:
    spec = place.model()
    for name, body, kind in (
        ("january.csv", table(spec), Kind.DATASET_ACCEPTED),
        ("broken.csv", b"?", Kind.DATASET_QUARANTINED),
    ):
        version = upload(place, spec, name, body)
        (entry,) = place.entries(spec.model, kind)
        stored = boto3.client("s3").head_object(Bucket=BUCKET, Key=f"{spec.model}/incoming/{name}", VersionId=version)
        assert {name: entry.details[name] for name in ("key", "version", "uploaded_by", "uploaded_at", "request")} == {
            "key": f"{spec.model}/incoming/{name}",
            "version": version,
            "uploaded_by": ACCOUNT,
            "uploaded_at": stored["LastModified"].isoformat(),
            "request": "N4N7GDK58NMKJ12R",
        }
    sha = hashlib.sha256(table(spec)).hexdigest()
    manifest = Manifest.model_validate_json(place.read(f"{spec.model}/datasets/{sha}/manifest.json"))
    assert (manifest.uploaded_by, manifest.request) == (ACCOUNT, "N4N7GDK58NMKJ12R")


def test_what_the_reconciler_says_again_names_nobody(place: Place) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/january.csv"
    event = place.uploaded(key, place.put(key, table(spec)))
    for told_by_s3_alone in ("requester", "request-id", "source-ip-address"):
        del event["detail"][told_by_s3_alone]
    place.deliver(validate_upload, event)
    (entry,) = place.entries(spec.model)
    assert (entry.details["uploaded_by"], entry.details["request"]) == (None, None)
    assert entry.details["uploaded_at"]


def test_the_same_event_twice_changes_nothing_but_says_it_again(place: Place) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/january.csv"
    event = place.uploaded(key, place.put(key, table(spec)))
    place.deliver(validate_upload, event)
    before = place.keys(f"{spec.model}/"), place.entries(spec.model)
    place.deliver(validate_upload, event)
    assert (place.keys(f"{spec.model}/"), place.entries(spec.model)) == before
    assert len(place.events(spec.model, "Dataset Accepted")) == 2


def test_the_same_bytes_under_two_names_are_one_dataset(place: Place) -> None:
    spec = place.model()
    for name in ("january.csv", "copy of january.csv"):
        upload(place, spec, name, table(spec))
    assert place.kinds(spec.model) == [Kind.DATASET_ACCEPTED]
    assert len({key.split("/")[2] for key in place.keys(f"{spec.model}/datasets/")}) == 1


def test_a_delivery_after_a_crash_finishes_what_was_begun(place: Place) -> None:
    spec = place.model()
    body = table(spec)
    place.put(f"{spec.model}/datasets/{hashlib.sha256(body).hexdigest()}/data.csv", "half a copy")
    upload(place, spec, "january.csv", body)
    assert place.read(f"{spec.model}/datasets/{hashlib.sha256(body).hexdigest()}/data.csv") == body


def test_the_version_of_the_event_is_judged_and_not_the_newest(place: Place) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/january.csv"
    good = place.put(key, table(spec))
    place.put(key, b"overwritten since")
    place.deliver(validate_upload, place.uploaded(key, good))
    assert place.kinds(spec.model) == [Kind.DATASET_ACCEPTED]


def test_a_broken_file_is_kept_beside_its_report_and_paged_once(place: Place) -> None:
    spec = place.model()
    body = table(spec, hour="25")
    key = f"{spec.model}/incoming/broken.csv"
    version = place.put(key, body)
    for _ in range(2):
        place.deliver(validate_upload, place.uploaded(key, version))
    folder = f"{spec.model}/quarantine/{hashlib.sha256(body).hexdigest()}"
    assert place.read(f"{folder}/broken.csv") == body
    report = Report.model_validate_json(place.read(f"{folder}/report.json"))
    assert any(violation.column == "hour" for violation in report.violations)
    drawn = place.s3.get_object(Bucket=BUCKET, Key=f"{folder}/report.html")
    assert drawn["ContentType"] == "text/html; charset=utf-8"
    assert b"<h1><bdi>broken.csv</bdi></h1>" in drawn["Body"].read()
    assert place.keys(f"{spec.model}/datasets/") == []
    (entry,) = place.entries(spec.model)
    assert (entry.kind, entry.subject) == (Kind.DATASET_QUARANTINED, version)
    (page,) = place.notices(spec.model)
    assert "broken.csv" in page
    assert f"noria validate broken.csv --model {spec.model}" in page
    (event,) = place.events(spec.model, "Dataset Quarantined")
    assert event["problems"] == entry.details["problems"]


def test_a_file_of_another_kind_is_quarantined(place: Place) -> None:
    spec = place.model()
    upload(place, spec, "notes.xlsx", b"PK\x03\x04")
    assert place.kinds(spec.model) == [Kind.DATASET_QUARANTINED]


def test_a_file_for_a_model_that_nobody_described_is_quarantined_where_it_came(place: Place) -> None:
    version = place.put("unheard-of/incoming/january.csv", "a,b\n1,2\n")
    place.deliver(validate_upload, place.uploaded("unheard-of/incoming/january.csv", version))
    (entry,) = place.entries("unheard-of")
    assert "no model is called 'unheard-of'" in entry.summary
    (report,) = [key for key in place.keys("unheard-of/quarantine/") if key.endswith("/report.json")]
    assert not json.loads(place.read(report))["accepted"]


def test_a_folder_made_in_a_console_is_no_upload(place: Place) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/2013/"
    place.deliver(validate_upload, place.uploaded(key, place.put(key, b""), size=0))
    assert place.kinds(spec.model) == []


def test_a_deeper_folder_of_that_name_is_no_place_for_uploads(place: Place) -> None:
    spec = place.model()
    body = table(spec)
    key = f"{spec.model}/labels/incoming/january.csv"
    place.deliver(validate_upload, place.uploaded(key, place.put(key, body), len(body)))
    assert place.entries(spec.model) == []
    assert place.keys(f"{spec.model}/") == [key]


@pytest.mark.parametrize(
    "name", ["jänner 2013 (1).csv", "a+b%20c&d=e.csv", "weather/2013/january.csv", "ü" * 200 + ".csv"]
)
def test_names_may_be_anything(name: str, place: Place) -> None:
    spec = place.model()
    good, bad = table(spec), table(spec, hour="25")
    upload(place, spec, name, good)
    version = upload(place, spec, name, bad)
    assert place.kinds(spec.model) == [Kind.DATASET_ACCEPTED, Kind.DATASET_QUARANTINED]
    assert place.entries(spec.model)[1].subject == version
    folder = f"{spec.model}/quarantine/{hashlib.sha256(bad).hexdigest()}"
    (kept,) = [key for key in place.keys(folder) if "/report." not in key]
    assert place.read(kept) == bad
    assert kept.endswith(name.rsplit("/", 1)[-1])


def test_a_name_as_long_as_a_key_can_be_is_cut_in_quarantine(place: Place) -> None:
    spec = place.model()
    name = "é" * ((1024 - len(f"{spec.model}/incoming/.csv")) // 2) + ".csv"
    upload(place, spec, name, b"no table")
    assert place.kinds(spec.model) == [Kind.DATASET_QUARANTINED]
    (kept,) = [key for key in place.keys(f"{spec.model}/quarantine/") if "/report." not in key]
    assert kept.endswith("é.csv")
    assert len(kept.encode()) <= 1024


def test_an_upload_that_belongs_to_no_model_is_left_alone(place: Place) -> None:
    place.deliver(
        validate_upload, place.uploaded("/incoming/january.csv", place.put("/incoming/january.csv", "a\n1\n"))
    )


def test_a_file_larger_than_the_disk_is_quarantined_with_its_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = place.model()
    key = f"{spec.model}/incoming/all of it.csv"
    version = place.put(key, table(spec))
    for _ in range(2):
        place.deliver(validate_upload, place.uploaded(key, version, size=10**15))
    (entry,) = place.entries(spec.model)
    assert (entry.kind, entry.subject) == (Kind.DATASET_QUARANTINED, version)
    assert "1,000,000.0 GB" in entry.summary
    folder = f"{spec.model}/quarantine/unread-{version}"
    assert place.keys(f"{spec.model}/quarantine/") == [f"{folder}/report.html", f"{folder}/report.json"]
    report = Report.model_validate_json(place.read(f"{folder}/report.json"))
    assert [violation.rule for violation in report.violations] == ["size"]
    assert len(place.notices(spec.model)) == 1
    # An event may also say nothing of the size, and the disk be full before the file has come.
    monkeypatch.setattr(function, "_room", lambda folder: 100)
    upload(place, spec, "another.csv", table(spec))
    assert place.kinds(spec.model) == [Kind.DATASET_QUARANTINED] * 2


def go_live(place: Place, spec: ModelSpec, baseline: str | None) -> None:
    """Have the ledger say that a package is live whose baseline is that text."""
    name, key = place.names.model(spec.model), f"{spec.model}/baselines/1/baseline.json"
    place.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    if baseline is not None:
        place.put(key, baseline)
    package = place.sagemaker.create_model_package(
        ModelPackageGroupName=name,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={"noria:baseline": f"s3://{BUCKET}/{key}"},
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/nothing"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    desired = Desired(package=package)
    at = datetime.now(UTC)
    place.ledger.record(
        Fact(model=spec.model, kind=Kind.DEPLOYED, subject="1", at=at, summary="live", details=desired.details)
    )


def report_of(place: Place, spec: ModelSpec, body: bytes) -> Report:
    return Report.model_validate_json(
        place.read(f"{spec.model}/datasets/{hashlib.sha256(body).hexdigest()}/report.json")
    )


def test_a_shift_from_what_the_live_model_was_trained_on_is_a_warning(place: Place, tmp_path: Path) -> None:
    spec = place.model(monitor={"min_rows": 100})
    (tmp_path / "base.csv").write_bytes(table(spec, rows=500))
    body = table(spec, rows=500, hour="22")
    go_live(place, spec, profile(Source.files(tmp_path / "base.csv"), spec).model_dump_json())
    upload(place, spec, "february.csv", body)
    report = report_of(place, spec, body)
    assert report.accepted
    assert report.shift
    assert report.shift.drifted == ("hour",)
    (entry,) = place.entries(spec.model, Kind.DATASET_ACCEPTED)
    assert entry.details["drifted"] == ["hour"]
    assert any("PSI" in str(warning) for warning in entry.details["warnings"])  # type: ignore[union-attr]


@pytest.mark.parametrize("baseline", [None, "no profile", "{}"])
def test_a_baseline_that_cannot_be_read_refuses_no_upload(baseline: str | None, place: Place) -> None:
    spec = place.model()
    body = table(spec)
    go_live(place, spec, baseline)
    upload(place, spec, "january.csv", body)
    report = report_of(place, spec, body)
    assert (report.accepted, report.shift) == (True, None)
    assert "cannot be read" in str(report.no_shift)


def test_without_a_live_model_the_report_says_so(place: Place) -> None:
    spec = place.model()
    body = table(spec)
    upload(place, spec, "january.csv", body)
    assert "no model is live" in str(report_of(place, spec, body).no_shift)


def test_what_a_handler_failed_on_is_raised_whether_its_message_can_be_put_back_or_not(place: Place) -> None:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="slow", Attributes={"VisibilityTimeout": "5400"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    key = f"{place.model().model}/incoming/january.csv"
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(place.uploaded(key, "no-such-version")))
    (message,) = sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]
    for receipt in (message["ReceiptHandle"], "not a receipt"):
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": receipt,
            "body": message["Body"],
            "attributes": message["Attributes"],
            "eventSourceARN": arn,
        }
        with pytest.raises(ClientError, match="GetObject"):
            validate_upload({"Records": [record]}, Context())
