"""Uploads become datasets or go to quarantine; nothing is lost, and nothing happens twice."""

import csv
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta

from lambdas.validate_upload.handler import handler as validate_upload
from noria.contract import Manifest, Report
from noria.ledger import Kind
from noria.spec import FeatureType, ModelSpec
from tests.integration.reactions.place import BUCKET, Place


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
    (page,) = place.pages(spec.model)
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
