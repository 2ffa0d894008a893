"""Late labels are joined with captured predictions once; what cannot be joined is paged once and kept."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import boto3
import pytest

from lambdas.join_labels.handler import handler as join_labels
from noria.ledger import Kind
from noria.quality import Quality
from noria.spec import METRICS, FeatureType, Metric, ModelSpec
from tests.integration.reactions.place import Place

SCORES = (0.9, 0.8, 0.2, 0.6)
LABELS = "inference_id,row,late\nfirst,0,1\nfirst,1,1\nsecond,0,0\nsecond,1,0\nelsewhere,0,1\n"


@pytest.fixture
def spec(place: Place) -> ModelSpec:
    """A model whose champion answered two requests of two rows each, both captured in the same hour."""
    spec = place.model(segments=[], monitor={"min_rows": 2})
    answered = datetime.now(UTC)
    name = place.names.model(spec.model)
    lines = [
        captured(spec, "first", SCORES[:2], answered),
        captured(spec, "second", SCORES[2:], answered),
        captured(spec, "second", SCORES[2:], answered),  # data capture may deliver a record again
        "cut of",
    ]
    place.put(f"{spec.model}/captured/{name}/champion/{answered:%Y/%m/%d/%H}/1.jsonl", "\n".join(lines))
    place.put(f"{spec.model}/captured/{name}/challenger/{answered:%Y/%m/%d/%H}/1.jsonl", lines[0])
    return spec


def captured(spec: ModelSpec, request: str, scores: Sequence[float], answered: datetime) -> str:
    instance = {name: "AA" if f.type is FeatureType.CATEGORY else 1 for name, f in spec.features.items()}
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
    assert (quality.predictions, quality.labels, quality.matched) == (4, 5, 4)
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


def test_a_correction_of_labels_is_joined_anew(place: Place, spec: ModelSpec) -> None:
    versions = [
        deliver(place, spec.model, "may.csv", body) for body in (LABELS, LABELS.replace("first,0,1", "first,0,0"))
    ]
    told = place.entries(spec.model, Kind.LABELS_JOINED)
    assert [entry.subject for entry in told] == versions
    assert told[0].details["auc"] != told[1].details["auc"]


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
    (page,) = place.pages(spec.model)
    assert problem in page
    assert place.read(f"{spec.model}/labels/{name}").decode() == body
    assert place.keys(f"{spec.model}/reports/") == []


def test_labels_of_a_model_that_nobody_described_are_paged(place: Place) -> None:
    deliver(place, "nobodys-model", "may.csv", LABELS)
    assert place.kinds("nobodys-model") == [Kind.LABELS_REFUSED]
    assert "no model is called 'nobodys-model'" in place.pages("nobodys-model")[0]


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
    assert place.pages(spec.model) == []
