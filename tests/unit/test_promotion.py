"""What is registered in another account: the same version, with nothing of the account that it comes from."""

import json
from typing import Any

import pytest

from noria.promotion import Place, copy, token

THERE = Place(account="111111111111", bucket="noria-dev-data-111111111111-eu-west-1")
HERE = Place(account="222222222222", bucket="noria-prod-data-222222222222-eu-west-1")
PACKAGE = "arn:aws:sagemaker:eu-west-1:111111111111:model-package/noria-dev-flight-delay/7"
BUILT = "dkr.ecr.eu-west-1.amazonaws.com/cdk-hnb659fds-container-assets"


def described(**changes: Any) -> dict[str, Any]:
    there = f"s3://{THERE.bucket}/flight-delay"
    return {
        "ModelPackageArn": PACKAGE,
        "ModelPackageGroupName": "noria-dev-flight-delay",
        "ModelApprovalStatus": "Approved",
        "CreatedBy": {"IamIdentity": {"Arn": "arn:aws:sts::111111111111:assumed-role/r/s"}},
        "InferenceSpecification": {
            "Containers": [
                {
                    "Image": f"111111111111.{BUILT}-111111111111-eu-west-1:0a1b",
                    "ImageDigest": "sha256:12",
                    "ModelDataUrl": f"{there}/runs/e1/model/j/model.tar.gz",
                    "ModelDataETag": "d41d",
                }
            ],
            "SupportedContentTypes": ["text/csv"],
        },
        "CustomerMetadataProperties": {
            "noria:baseline": f"{there}/baselines/e1/baseline.json",
            "noria:evaluation": f"{there}/runs/e1/evaluation/evaluation.json",
            "noria:code": "c" * 64,
            "noria:outcome": "live",
        },
        **changes,
    }


def test_a_copy_is_what_the_registry_has_in_this_environments_bucket_and_account() -> None:
    registration = copy(described(), model="flight-delay", origin=THERE, here=HERE).registration
    here = f"s3://{HERE.bucket}/flight-delay"
    assert registration == {
        "InferenceSpecification": {
            "Containers": [
                {
                    "Image": f"222222222222.{BUILT}-222222222222-eu-west-1:0a1b",
                    "ModelDataUrl": f"{here}/runs/e1/model/j/model.tar.gz",
                }
            ],
            "SupportedContentTypes": ["text/csv"],
        },
        "CustomerMetadataProperties": {
            "noria:baseline": f"{here}/baselines/e1/baseline.json",
            "noria:evaluation": f"{here}/runs/e1/evaluation/evaluation.json",
            "noria:code": "c" * 64,
            "noria:origin": PACKAGE,
        },
    }
    del registration["CustomerMetadataProperties"]["noria:origin"]  # the only thing that speaks of the other account
    assert THERE.account not in json.dumps(registration)


def test_it_brings_every_object_that_it_names() -> None:
    assert copy(described(), model="flight-delay", origin=THERE, here=HERE).objects == (
        "flight-delay/baselines/e1/baseline.json",
        "flight-delay/runs/e1/evaluation/evaluation.json",
        "flight-delay/runs/e1/model/j/model.tar.gz",
    )


def test_an_image_of_aws_is_the_same_in_every_account() -> None:
    image = "141502667606.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
    said = described(InferenceSpecification={"Containers": [{"Image": image}]})
    moved = copy(said, model="flight-delay", origin=THERE, here=HERE).registration
    assert moved["InferenceSpecification"] == {"Containers": [{"Image": image}]}


@pytest.mark.parametrize(
    "uri",
    [
        "s3://somebody-elses/flight-delay/runs/e1/model.tar.gz",
        f"s3://{THERE.bucket}/house-prices/runs/e1/model.tar.gz",
        f"s3://{THERE.bucket}/flight-delay/incoming/secret.csv",
        f"s3://{HERE.bucket}/flight-delay/runs/e1/model.tar.gz",
    ],
)
def test_what_is_no_object_of_the_package_is_not_brought(uri: str) -> None:
    said = described(CustomerMetadataProperties={"noria:baseline": uri})
    with pytest.raises(ValueError, match="is no object of a package of 'flight-delay'"):
        copy(said, model="flight-delay", origin=THERE, here=HERE)


def test_the_token_of_a_registration_is_the_same_for_the_same_package_and_not_for_others() -> None:
    assert token(PACKAGE) == token(PACKAGE)
    assert token(PACKAGE) != token(PACKAGE[:-1] + "8")
    assert len(token(PACKAGE)) == 36
