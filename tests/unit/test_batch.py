"""Files of rows to answer: what is refused and why, and what a job and a person get of the rest."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from noria import batch
from noria.batch import Batch, Prepared, Signature
from noria.spec import FeatureType

SIGNATURE = Signature.model_validate(
    {
        "features": [
            {"name": "hour", "type": "integer", "nullable": False},
            {"name": "carrier", "type": "category", "nullable": False, "categories": ["AA"]},
            {"name": "temp", "type": "number", "nullable": True},
        ],
        "task": "binary_classification",
    }
)


def prepare(tmp_path: Path, body: str | bytes, filename: str = "rows.csv") -> tuple[Prepared, str]:
    """What is said of a file, and the rows for the job."""
    source, target = tmp_path / "upload", tmp_path / "rows"
    source.write_bytes(body if isinstance(body, bytes) else body.encode())
    prepared = batch.prepare(source, SIGNATURE, model="flight-delay", filename=filename, to=target)
    return prepared, target.read_text()


def refusals(tmp_path: Path, body: str | bytes, filename: str = "rows.csv") -> list[str]:
    prepared, _ = prepare(tmp_path, body, filename)
    assert not prepared.report.accepted
    return [violation.message for violation in prepared.report.violations]


def test_columns_in_any_order_become_the_signature_s_behind_the_others(tmp_path: Path) -> None:
    prepared, rows = prepare(tmp_path, 'temp, id,hour,carrier\n3.5,"a,1",7,AA\n,b,8,New\n\n')
    assert prepared.report.accepted
    assert prepared.report.rows == 2
    assert (prepared.columns, prepared.others) == (("id", "hour", "carrier", "temp"), 1)
    assert rows == '"a,1",7,AA,3.5\nb,8,New,\n'


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path: Path) -> None:
    prepared, rows = prepare(tmp_path, b"\xef\xbb\xbfhour,carrier,temp\r\n7,AA,1\r\n")
    assert prepared.report.accepted
    assert (rows, prepared.others) == ("7,AA,1\n", 0)


def test_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    lines = '{"id": 1, "hour": 7, "carrier": "AA", "temp": null}\n{"hour": 8.0, "carrier": "B", "temp": 2}'
    prepared, rows = prepare(tmp_path, lines, "rows.jsonl")
    assert prepared.report.accepted
    assert rows == f"{lines}\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("7,AA,1\n8,AA,2\n", "the first line must name the columns, in any order: hour, carrier, temp"),
        ("Hour,carrier,temp\n7,AA,1\n", "column 'hour' is missing: rename 'Hour' to it"),
        ("carrier,temp\nAA,1\n", "column 'hour' is missing: add it"),
        ("hour;carrier;temp\n7;AA;1\n", "fields are separated by ';'"),
        ("hour,carrier,temp,temp\n7,AA,1,1\n", "names 'temp' twice"),
        ("hour,carrier,temp,score\n7,AA,1,1\n", "column 'score': the result calls its answer so"),
        (
            "hour,carrier,temp\nsix,AA,1\n7,AA,2\n",
            "column 'hour': 1 row: it must be a whole number, or empty (as in 'six')",
        ),
        ("hour,carrier,temp\n7.5,AA,1\n", "it must be a whole number"),
        ("hour,carrier,temp\n7,AA,inf\n", "it must be a finite number"),
        ("hour,carrier,temp\n,AA,1\n", "column 'hour': 1 row: a value is required"),
        ("hour,carrier,temp\n7,AA\n", "another number of fields than the header's 3"),
        ('hour,carrier,temp,note\n7,AA,1,"two\nlines"\n', "a value has a line break"),
        ('hour,carrier,temp\n7,"A"A,1\n', "line 2 cannot be read as CSV"),
        ("hour,carrier,temp\n", "the file has no rows"),
        ("", "the file has no rows"),
        (b"hour,carrier,temp\n7,\xff,1\n", "line 2 is not UTF-8"),
    ],
)
def test_what_the_model_would_refuse_is_told_with_its_place_and_remedy(
    tmp_path: Path, body: str | bytes, said: str
) -> None:
    assert any(said in message for message in refusals(tmp_path, body))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"hour": 1, "carrier": "AA"}', "column 'temp': 1 row: the feature is missing"),
        ('{"hour": "1", "carrier": "AA", "temp": 1}', "it must be a number, or null (as in '1')"),
        ('{"hour": 1.5, "carrier": "AA", "temp": 1}', "a whole number"),
        ('{"hour": true, "carrier": "AA", "temp": 1}', "it must be a number"),
        ('{"hour": 1, "carrier": 1.5, "temp": 1}', "it must be a text"),
        ('{"hour": null, "carrier": "AA", "temp": 1}', "a value is required"),
        ('{"hour": 1, "carrier": "AA", "temp": NaN}', "NaN is not JSON"),
        ('{"hour": 1, "carrier": "AA", "temp": 1, "SageMakerOutput": 1}', "column 'SageMakerOutput'"),
    ],
)
def test_lines_that_the_model_would_refuse(tmp_path: Path, line: str, said: str) -> None:
    assert any(said in message for message in refusals(tmp_path, f"{line}\n", "rows.jsonl"))


def test_each_mistake_is_told_once_with_its_first_rows(tmp_path: Path) -> None:
    body = "hour,carrier,temp\n" + "7,AA,1\n" + "x,AA,y\n" * 9
    prepared, _ = prepare(tmp_path, body)
    told = {violation.column: violation for violation in prepared.report.violations}
    assert told["hour"].count == 9
    assert told["hour"].rows == (2, 3, 4, 5, 6)
    assert "rows 2, 3, 4, 5, 6" in prepared.report.to_text()


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert refusals(tmp_path, "x", "rows.parquet") == [
        "'rows.parquet' is neither .csv nor .jsonl: export it as one of them"
    ]


def test_a_bundle_says_what_its_model_takes() -> None:
    def bundle(files: dict[str, str]) -> io.BytesIO:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        packed.seek(0)
        return packed

    found = Signature.in_bundle(bundle({"model.onnx": "x", "signature.json": SIGNATURE.model_dump_json()}))
    assert found == SIGNATURE
    assert SIGNATURE.features[0].type is FeatureType.INTEGER
    assert Signature.in_bundle(bundle({"model.onnx": "x"})) is None


def request(kind: str, columns: tuple[str, ...] = (), others: int = 0) -> Batch:
    return Batch.model_validate(
        {
            "model": "flight-delay",
            "token": "0" * 64,
            "key": f"flight-delay/batch/rows.{kind}",
            "version": "1",
            "format": kind,
            "rows": 1,
            "columns": columns,
            "others": others,
            "package": "arn",
            "model_name": "model",
            "instance": "ml.m5.large",
        }
    )


@pytest.mark.parametrize(
    ("answered", "header"),
    [
        ("a,7,0.5\n", "id,hour,prediction"),
        ("a,7,1,0.5\n", "id,hour,prediction,score"),
        ("a,7,1,2,3\n", "id,hour,prediction,score,answer_3"),
    ],
)
def test_a_csv_result_has_a_header(tmp_path: Path, answered: str, header: str) -> None:
    raw, result = tmp_path / "raw", tmp_path / "result"
    raw.write_text(answered)
    asked = request("csv", ("id", "hour"), 1)
    batch.finish(asked, raw, result)
    assert result.read_text() == f"{header}\n{answered}"
    assert (asked.result, asked.input_filter) == ("flight-delay/batch/rows.csv.out", "$[1:]")


def test_a_json_result_holds_each_object_with_its_answer(tmp_path: Path) -> None:
    raw, result = tmp_path / "raw", tmp_path / "result"
    raw.write_text('{"id":"é","hour":7,"SageMakerOutput":{"prediction":1,"score":0.5}}\n{"id":2,"SageMakerOutput":3}\n')
    batch.finish(request("jsonl"), raw, result)
    rows = [json.loads(line) for line in result.read_text().splitlines()]
    assert rows == [{"id": "é", "hour": 7, "prediction": 1, "score": 0.5}, {"id": 2, "prediction": 3}]


def test_a_job_s_name_fits_sagemaker_s_63_characters() -> None:
    token = batch.batch_token("flight-delay/batch/rows.csv", "1")
    name = batch.job_name(f"noria-production-{'m' * 32}", token)
    assert len(name) == 63
    assert name.endswith(token[:16])
    assert batch.batch_token("flight-delay/batch/rows.csv", "2") != token
