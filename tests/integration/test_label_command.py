"""`noria label` puts labels where all labels go, and nothing that could not be joined; `noria hard-cases` lists."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.labelled import HardCase, HardCases
from tests.integration.moto_cloud import in_memory

MODELS = str(Path(__file__).parents[2] / "models")
MODEL = "flight-delay"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    with in_memory(monkeypatch):
        boto3.client("s3").create_bucket(Bucket="data")
        for name, value in {"data-bucket": "data", "ledger-table": "ledger"}.items():
            boto3.client("ssm").put_parameter(Name=f"/noria/dev/{name}", Value=value, Type="String")
        boto3.client("dynamodb").create_table(
            TableName="ledger",
            KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"noria-dev-{MODEL}")
        yield Storage(bucket="data")


def label(*arguments: str) -> str:
    return CliRunner().invoke(app, ["label", MODEL, "--models", MODELS, *arguments], catch_exceptions=False).stdout


def labels(storage: Storage) -> list[str]:
    return [file.key for file in storage.list(f"{MODEL}/labels/")]


def test_a_file_is_uploaded_under_its_name(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "may.csv"
    file.write_text("inference_id,row,late\na,0,1\na,1,0\n")
    given = json.loads(label(str(file), "--json"))
    assert given == {"model": MODEL, "uri": f"s3://data/{MODEL}/labels/may.csv", "predictions": 2, "waits": None}
    assert storage.read(f"{MODEL}/labels/may.csv") == file.read_bytes()


def test_who_may_not_read_the_ledger_hears_that_the_file_is_there(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "may.csv"
    file.write_text("inference_id,row,late\na,0,1\na,1,0\n")
    boto3.client("dynamodb").delete_table(TableName="ledger")
    assert "could not be asked (ResourceNotFoundException): noria status" in label(str(file))
    assert labels(storage) == [f"{MODEL}/labels/may.csv"]


def test_a_file_that_could_not_be_joined_is_told_so_and_stays_here(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "may.csv"
    file.write_text("inference_id,delayed\na,1\n")
    with pytest.raises(Refused, match="column 'late' is missing"):
        label(str(file))
    assert labels(storage) == []


def test_one_label_carries_the_time_of_the_command_so_that_the_next_corrects_it(storage: Storage) -> None:
    before = datetime.now(UTC)
    for value in ("0", "1"):
        label("--id", "order-1, of two", "--row", "3", "--label", value)
    keys = labels(storage)
    assert len(keys) == 2
    lines = sorted((storage.read(key).decode().splitlines() for key in keys), key=lambda text: text[1][-32:])
    assert [text[0] for text in lines] == ["inference_id,row,late,labelled_at"] * 2
    assert [text[1].rpartition(",")[0] for text in lines] == ['"order-1, of two",3,0', '"order-1, of two",3,1']
    clocks = [datetime.fromisoformat(text[1].rpartition(",")[2]) for text in lines]
    assert before <= clocks[0] < clocks[1]


@pytest.mark.parametrize("arguments", [[], ["--id", "a"], ["--label", "1"], ["FILE", "--id", "a", "--label", "1"]])
def test_it_takes_a_file_or_one_prediction(storage: Storage, tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "may.csv"
    file.write_text("inference_id,late\na,1\n")
    with pytest.raises(Refused, match="Name a labels file, or one prediction"):
        label(*(str(file) if argument == "FILE" else argument for argument in arguments))
    assert labels(storage) == []


def test_hard_cases_are_listed_the_unsure_first(storage: Storage) -> None:
    with pytest.raises(Refused, match="noria label flight-delay FILE"):
        CliRunner().invoke(app, ["hard-cases", MODEL], catch_exceptions=False)
    now = datetime(2026, 11, 21, 10, tzinfo=UTC)

    def case(name: str, truth: str | None, measure: float) -> HardCase:
        features: dict[str, float | str | None] = {"hour": 7.0, "carrier": "***"}
        return HardCase(
            inference_id=name, row=0, time=now, features=features, prediction="1", label=truth, measure=measure
        )

    found = HardCases(
        model=MODEL, since=now, until=now, unsure=(case("a", None, 0.51),), surprising=(case("b", "0", 0.02),)
    )
    storage.write(f"{MODEL}/reports/quality/hard-cases.json", found.model_dump_json())
    answer = CliRunner().invoke(app, ["hard-cases", MODEL, "--json"], catch_exceptions=False)
    assert HardCases.model_validate_json(answer.stdout) == found
    table = CliRunner().invoke(app, ["hard-cases", MODEL], catch_exceptions=False).stdout
    assert table.index("unsure") < table.index("surprising")
