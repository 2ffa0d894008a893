"""The served model: what clients send, what they get, and what they are told when they are wrong."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from noria.spec import Task
from noria.sql import connect
from pipelines.serving import inference
from pipelines.tabular.signature import Signature
from pipelines.tabular.train import read

JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"
GOOD = {"x": 0.5, "color": "red", "size": 2}


@pytest.fixture
def model(trained: Callable[[Task], Any]) -> Any:
    return inference.model_fn(str(trained(Task.BINARY).bundle))


def ask(model: Any, body: Any, content_type: str = JSON, accept: str = JSON, **environ: str) -> tuple[int, Any]:
    """Status and body, as the container would send them; `environ` is of the request, as WSGI has it."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    result = inference.output_fn(inference.predict_fn(inference.input_fn(text, content_type), model), accept)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    answer = b"".join(result(environ, lambda status, headers: started.append((status, headers))))
    ((status, headers),) = started
    assert ("X-Amzn-SageMaker-Custom-Attributes", f"noria-bundle={model.bundle}") in headers
    return int(status.split()[0]), answer.decode()


def problems(
    model: Any, body: Any, content_type: str = JSON, accept: str = JSON, *, status: int = 400
) -> list[dict[str, Any]]:
    told, answer = ask(model, body, content_type, accept)
    assert told == status
    found: list[dict[str, Any]] = json.loads(answer)["problems"]
    return found


def test_binary_answers_a_label_and_the_probability_of_the_positive_class(model: Any) -> None:
    rows = [GOOD, {**GOOD, "x": 3.0, "color": "blue"}, {**GOOD, "x": -3.0}]
    status, answer = ask(model, {"instances": rows})
    predictions = json.loads(answer)["predictions"]
    assert status == 200
    assert [p["prediction"] for p in predictions[1:]] == [1, 0]
    for prediction in predictions:
        assert 0 <= prediction["score"] <= 1
        assert prediction["prediction"] == int(prediction["score"] >= 0.5)


def test_multiclass_answers_a_label_and_all_probabilities(trained: Callable[[Task], Any]) -> None:
    model = inference.model_fn(str(trained(Task.MULTICLASS).bundle))
    _, answer = ask(model, {"instances": [{**GOOD, "x": 3.0, "color": "blue"}]})
    (prediction,) = json.loads(answer)["predictions"]
    assert prediction["prediction"] == "high"
    assert set(prediction["scores"]) == {"low", "middle", "high"}
    assert sum(prediction["scores"].values()) == pytest.approx(1)
    assert ask(model, "3.0,blue,2\n", CSV, CSV) == (200, "high\n")


def test_regression_answers_a_number(trained: Callable[[Task], Any]) -> None:
    model = inference.model_fn(str(trained(Task.REGRESSION).bundle))
    _, answer = ask(model, {"instances": [{**GOOD, "x": 1.0, "color": "blue"}]})
    (prediction,) = json.loads(answer)["predictions"]
    assert set(prediction) == {"prediction"}
    assert prediction["prediction"] == pytest.approx(3, abs=0.7)


def test_csv_and_json_say_the_same(model: Any) -> None:
    _, as_json = ask(model, {"instances": [GOOD, {**GOOD, "x": None}]})
    status, as_csv = ask(model, "0.5,red,2\n,red,2\n", CSV, CSV)
    assert status == 200
    expected = [[p["prediction"], p["score"]] for p in json.loads(as_json)["predictions"]]
    assert [[int(label), float(score)] for label, score in csv.reader(io.StringIO(as_csv))] == expected


def test_bytes_and_parameters_of_a_media_type_are_understood(model: Any) -> None:
    body = json.dumps({"instances": [GOOD]}).encode()
    assert ask(model, body, "application/json; charset=utf-8", "text/html, */*;q=0.1")[0] == 200


def test_a_category_that_training_did_not_see_counts_as_missing(model: Any) -> None:
    answers = [ask(model, {"instances": [{**GOOD, "color": color}]}) for color in ("mauve", None)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 200


@pytest.mark.parametrize("task", list(Task))
def test_serving_gives_the_model_the_numbers_that_training_gave_it(
    trained: Callable[[Task], Any], tables: Any, task: Task
) -> None:
    example = trained(task)
    signature = Signature.model_validate_json((example.bundle / "signature.json").read_text())
    with connect(tables.resources) as db:
        expected = read(db, example.test_rows, example.spec, signature).inputs
        names = [feature.name for feature in signature.features]
        rows = db.execute(f"SELECT {', '.join(names)} FROM read_parquet('{example.test_rows}')").fetchall()  # noqa: S608
    contract = inference.model_fn(str(example.bundle)).contract
    as_json = contract.encode([dict(zip(names, row, strict=True)) for row in rows])
    as_csv = contract.encode([tuple("" if v is None else str(v) for v in row) for row in rows])
    np.testing.assert_array_equal(as_json, expected)
    np.testing.assert_array_equal(as_csv, expected)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"x": "much"}, "x", "'much' is not a finite number"),
        ({"x": True}, "x", "True is not a finite number"),
        ({"size": 1.5}, "size", "1.5 is not a whole number"),
        ({"size": None}, "size", "a value is required"),
        ({"color": 1.5}, "color", "not a category"),
        ({"color": ["red"]}, "color", "not a category"),
    ],
)
def test_a_wrong_value_is_told_with_row_and_field(model: Any, change: dict[str, Any], field: str, words: str) -> None:
    (problem,) = problems(model, {"instances": [GOOD, {**GOOD, **change}]})
    assert (problem["row"], problem["field"]) == (1, field)
    assert words in problem["problem"]


def test_a_missing_feature_is_told(model: Any) -> None:
    (problem,) = problems(model, {"instances": [{"x": 1.0, "size": 1}]})
    assert problem == {"row": 0, "field": "color", "problem": "the feature is missing"}


def test_all_mistakes_are_told_up_to_a_limit(model: Any) -> None:
    found = problems(model, {"instances": [{"x": "a", "color": "red", "size": "b"}] * 2})
    assert [(p["row"], p["field"]) for p in found] == [(0, "x"), (0, "size"), (1, "x"), (1, "size")]
    assert len(problems(model, {"instances": [{}] * 1000})) == inference.PROBLEMS_TOLD


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("0.5,red\n", "2 fields instead of 3: x, color, size"),
        ("0.5,red,2,9\n", "4 fields"),
        ("x,red,2\n", "'x' is not a finite number"),
        ("inf,red,2\n", "'inf' is not a finite number"),
        ("0.5,red,inf\n", "'inf' is not a whole number"),
        ("0.5,red,\n", "a value is required"),
        ("", "no rows"),
    ],
)
def test_a_wrong_csv_row_is_told(model: Any, body: str, words: str) -> None:
    assert words in problems(model, body, CSV)[0]["problem"]


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ("{", JSON, "not JSON"),
        ('{"instances": [{"x": NaN}]}', JSON, "nan is not a finite number"),
        ('{"instances": [{"x": 1%s}]}' % ("0" * 400), JSON, "not a finite number"),
        ("[1]", JSON, "instances"),
        ('{"instances": []}', JSON, "at least one"),
        ('{"instances": [1]}', JSON, "object"),
        ('{"instances": [[0.5, "red", 2]]}', JSON, "object"),
        (b"\xff\xfe", JSON, "UTF-8"),
        ('{"x": 1}\n{', JSON_LINES, "not JSON"),
    ],
)
def test_a_body_of_another_kind_is_told(model: Any, body: str | bytes, content_type: str, words: str) -> None:
    assert words.lower() in problems(model, body, content_type)[0]["problem"].lower()


def test_media_types_that_are_not_known_are_told(model: Any) -> None:
    body = json.dumps({"instances": [GOOD]})
    assert "application/xml" in problems(model, body, "application/xml", status=415)[0]["problem"]
    assert "image/png" in problems(model, body, accept="image/png", status=406)[0]["problem"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/*", CSV),
        ("text/html, */*;q=0.1", JSON),
        ("application/jsonlines", JSON_LINES),
        ("application/json;q=0.2, text/csv;q=0.9", CSV),
        ("text/csv;q=0, application/jsonlines", JSON_LINES),
    ],
)
def test_the_answer_is_of_the_type_that_the_client_likes_best(accept: str, media_type: str) -> None:
    assert inference.accepted(accept) == media_type


def test_lines_of_json_are_answered_in_lines_of_json(model: Any) -> None:
    _, together = ask(model, {"instances": [GOOD, {**GOOD, "x": 2}]})
    status, lines = ask(model, f"{json.dumps(GOOD)}\n\n{json.dumps({**GOOD, 'x': 2})}\n", JSON_LINES, JSON_LINES)
    assert status == 200
    assert [json.loads(line) for line in lines.splitlines()] == json.loads(together)["predictions"]


def test_rows_of_many_kinds_of_values_are_encoded_one_by_one(model: Any) -> None:
    """Whole numbers with a point, categories that are not text: right, but not what a row usually holds."""
    rows = [GOOD, {**GOOD, "size": 2.0}, {**GOOD, "color": True}, {**GOOD, "color": 3}]
    encoded = model.contract.encode(rows)
    np.testing.assert_array_equal(encoded[0], encoded[1])
    assert np.isnan(encoded[2:, 1]).all()


def test_long_texts_are_not_kept(model: Any) -> None:
    tracemalloc.start()
    rows = [("0.5", f"{number}-{'red' * 50_000}", "2") for number in range(100)]
    encoded = model.contract.encode(rows)
    del rows
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.isnan(encoded[:, 1]).all()
    assert kept < 1_000_000


def test_a_line_is_printed_for_a_request_where_nothing_else_captures_it(
    model: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NORIA_CAPTURE", "stdout")
    _, answer = ask(model, "0.5,red,2\n", CSV, JSON, HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID="order-7")
    ask(model, "wrong", CSV)  # is not captured, as SageMaker does not
    ask(model, "0.5,red,2\n", CSV)
    ask(model, "0.5,red,2\n" * 50_000, CSV)  # is longer than a line of the log can be
    line, without_id, too_long = capfd.readouterr().out.splitlines()
    assert json.loads(too_long).keys() == {"noria", "bytes"}
    assert json.loads(without_id)["eventMetadata"].keys() == {"eventId", "customAttributes", "inferenceTime"}
    record = json.loads(line)
    assert record["noria"] == "capture"
    assert record["captureData"] == {
        "endpointInput": {"observedContentType": CSV, "mode": "INPUT", "data": "0.5,red,2\n", "encoding": "CSV"},
        "endpointOutput": {"observedContentType": JSON, "mode": "OUTPUT", "data": answer, "encoding": "JSON"},
    }
    assert record["eventMetadata"]["inferenceId"] == "order-7"
    assert record["eventMetadata"]["customAttributes"] == [f"noria-bundle={model.bundle}"]
