"""SageMaker's lineage follows the ledger: once each, also after a death, and from what SageMaker made itself."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from noria.aws.lineage import Lineage, Outcome
from noria.ledger import Entry, Fact, Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def package(place: Place, spec: ModelSpec) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{spec.model}/model.tar.gz"}
    arn: str = place.sagemaker.create_model_package(
        ModelPackageGroupName=place.names.model(spec.model),
        CustomerMetadataProperties={"noria:code": "c" * 64},
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    return arn


def history(place: Place) -> tuple[list[Entry], list[str]]:
    """The ledger of a model with two versions that were approved and went live, and their packages."""
    spec = place.model()
    place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
    arns = [package(place, spec), package(place, spec)]

    def tell(kind: Kind, subject: str, **details: Any) -> None:
        now = datetime.now(UTC)
        place.ledger.record(
            Fact(model=spec.model, kind=kind, subject=subject, at=now, summary=f"{kind}\nof it.", details=details)
        )

    hashes: list[str] = []
    for number, arn in enumerate(arns):
        hashes.append(f"{number}" * 63 + "f")
        name = f"{spec.model}/incoming/{number}.csv"
        tell(Kind.DATASET_ACCEPTED, hashes[-1], key=name, version=f"v{number}", rows=9, uploaded_by="123456789012")
        execution, token = f"execution-{number}-of-{spec.model}", f"{number}" * 64
        tell(
            Kind.TRAINING_STARTED, token, execution=execution, cause="upload", dataset=f"{number}" * 64, datasets=hashes
        )
        tell(Kind.TRAINING_SUCCEEDED, execution, package=arn, hours=0.5)
        tell(Kind.PACKAGE_APPROVED, f"{arn}#now", package=arn, by="arn:anna", reason="it is\nbetter, größer")
        tell(Kind.DEPLOYED, f"deploy-{number}-{spec.model}", package=arn, challenger="none", percent=0, shadow="none")
    return place.entries(spec.model), arns


def lineage(place: Place) -> Lineage:
    return Lineage(names=place.names, bucket=BUCKET)


def related(place: Place, uri: str, direction: str) -> dict[str, list[str]]:
    """URIs and names of what is above or below the artifact of that URI, by type."""
    (start,) = place.sagemaker.list_artifacts(SourceUri=uri)["ArtifactSummaries"]
    answer = place.sagemaker.query_lineage(StartArns=[start["ArtifactArn"]], Direction=direction)
    found: dict[str, list[str]] = {}
    for vertex in answer["Vertices"]:
        if vertex["LineageType"] == "Artifact":
            name = place.sagemaker.describe_artifact(ArtifactArn=vertex["Arn"])["Source"]["SourceUri"]
        else:
            name = vertex["Arn"].rpartition("/")[2]
        found.setdefault(vertex["Type"], []).append(name)
    return {kind: sorted(names) for kind, names in found.items()}


def test_from_a_package_up_to_every_dataset_and_from_a_dataset_down_to_every_deployment(place: Place) -> None:
    entries, (one, two) = history(place)
    model = entries[0].model
    assert lineage(place).follow(entries, since=LONG_AGO) is Outcome.WRITTEN
    data = [f"s3://{BUCKET}/{model}/datasets/{e.subject}/data.csv" for e in entries if e.kind is Kind.DATASET_ACCEPTED]
    above = related(place, two, "Ascendants")
    assert {uri for uri in above["DataSet"] if "/datasets/" in uri} == set(data)
    assert above["Code"] == [f"sha256:{'c' * 64}"]
    assert (len(above["Training"]), len(above["Approval"])) == (1, 1)
    below = related(place, data[0], "Descendants")
    assert below["Model"] == [one, two]
    assert (len(below["Training"]), len(below["Deployment"])) == (2, 2)
    assert related(place, data[1], "Descendants")["Model"] == [two]
    approval = place.sagemaker.describe_action(ActionName=above["Approval"][0])
    assert approval["Properties"]["by"] == "arn:anna"
    assert approval["Properties"]["reason"] == "it is better, größer"


def test_told_again_it_writes_nothing_and_asks_nobody_for_what_it_has_written(place: Place) -> None:
    entries, _ = history(place)
    lineage(place).follow(entries, since=LONG_AGO)
    assert lineage(place).follow(entries, since=LONG_AGO) is Outcome.KNOWN
    asked = Calls(place.sagemaker)
    again = Lineage(names=place.names, bucket=BUCKET, client=asked)  # type: ignore[arg-type]
    assert again.follow(entries, since=LONG_AGO) is Outcome.KNOWN
    assert set(asked.made) == {"describe_action"}
    count = len(asked.made)
    again.follow(entries, since=LONG_AGO)
    assert len(asked.made) == count


class Calls:
    """A client that counts its calls; the last one that it lets through is the one before `dies`."""

    def __init__(self, client: Any, dies: int = 10**6, code: str = "Died") -> None:
        self._client, self._dies, self._code = client, dies, code
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            if len(self.made) >= self._dies:
                raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, name)
            self.made.append(name)
            return getattr(self._client, name)(**request)

        return call


@pytest.mark.parametrize("dies", [1, 4, 10, 17])
def test_a_death_between_any_two_calls_is_mended_by_the_next(place: Place, dies: int) -> None:
    entries, (one, _) = history(place)
    mortal = Lineage(names=place.names, bucket=BUCKET, client=Calls(place.sagemaker, dies))  # type: ignore[arg-type]
    with pytest.raises(ClientError):
        mortal.follow(entries, since=LONG_AGO)
    assert lineage(place).follow(entries, since=LONG_AGO) is Outcome.WRITTEN
    above = related(place, one, "Ascendants")
    assert {kind: len(names) for kind, names in above.items()} == {
        "Training": 1,
        "Code": 1,
        "DataSet": 2,
        "Approval": 1,
    }


def test_a_full_account_stops_it_and_says_so(place: Place) -> None:
    entries, _ = history(place)
    full = Calls(place.sagemaker, 3, "ResourceLimitExceeded")
    found = Lineage(names=place.names, bucket=BUCKET, client=full).follow(entries, since=LONG_AGO)  # type: ignore[arg-type]
    assert found is Outcome.FULL


def test_what_is_there_is_not_made_twice_nor_deleted_while_something_leads_to_it(place: Place) -> None:
    entries, (one, _) = history(place)
    lineage(place).follow(entries, since=LONG_AGO)
    sagemaker = place.sagemaker
    (own,) = sagemaker.list_artifacts(SourceUri=one)["ArtifactSummaries"]
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_artifact(Source={"SourceUri": one}, ArtifactType="Model")
    with pytest.raises(ClientError, match="delete them first"):
        sagemaker.delete_artifact(ArtifactArn=own["ArtifactArn"])
    edges = sagemaker.list_associations(DestinationArn=own["ArtifactArn"])["AssociationSummaries"]
    assert {edge["AssociationType"] for edge in edges} == {"Produced", "AssociatedWith"}
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.add_association(SourceArn=edges[0]["SourceArn"], DestinationArn=edges[0]["DestinationArn"])
    with pytest.raises(ClientError, match="does not exist"):
        sagemaker.describe_action(ActionName="nobody")
