"""Two accounts in a local cloud, with IAM on: what the registry's policies, as synthesised, let the other do."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.import_package.handler import Outcome, import_package
from local.cloud import ACCOUNT, REGION, REPOSITORY, LocalCloud
from noria.aws.ledger import Ledger
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.promotion import Place
from noria.spec import load
from stacks.settings import Follower
from tests.infrastructure import test_accounts as templates
from tests.infrastructure.assembly import Assembly

PORT = 4767
OTHER = templates.HERE
GROUP = "noria-local-flight-delay"
BUCKET = f"noria-local-data-{ACCOUNT}-{REGION}"
PACKAGE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{GROUP}/1"
IMPORTER = "noria-prod-reactions-ImportPackageRole0A1B2C3D-9Z8Y7X"
RESOURCES = {
    "AWS::KMS::Key": "*",
    "AWS::S3::BucketPolicy": f"arn:aws:s3:::{BUCKET}",
    "AWS::SageMaker::ModelPackageGroup": "",
}


class Accounts:
    """Clients of the cloud: as an account's root, or as a role of the other account."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud

    def root(self, service: str, account: str = ACCOUNT) -> Any:
        key = "test" if account == ACCOUNT else account
        return self._client(service, key, key)

    def other(self, service: str, role: str = IMPORTER) -> Any:
        sts = self.root("sts", OTHER)
        arn = f"arn:aws:iam::{OTHER}:role/{role}"
        got = sts.assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
        return self._client(service, got["AccessKeyId"], got["SecretAccessKey"], got["SessionToken"])

    def make_role(self, name: str, account: str, trusted: dict[str, str], *allowed: dict[str, Any]) -> str:
        iam = self.root("iam", account)
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": trusted}
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy(*allowed))
        return str(role["Arn"])

    def _client(self, service: str, key: str, secret: str, token: str | None = None) -> Any:
        session: Any = boto3.Session(key, secret, token, region_name=REGION)
        return session.client(service, endpoint_url=self._cloud.endpoint, verify=str(self._cloud.certificate))


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    models = tmp_path_factory.mktemp("models")
    (models / "flight-delay.yaml").write_text((REPOSITORY / "models" / "flight-delay.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.infrastructure.conftest.REGION", REGION)
        followers = (Follower(env="prod", account=OTHER),)
        return templates._of("local", ACCOUNT, models, tmp_path_factory.mktemp("out"), promotes_to=followers)


@pytest.fixture(scope="module")
def given(registry: Assembly) -> dict[str, dict[str, Any]]:
    """The statements about the other account, by the type of the resource whose policy has them."""
    found = {}
    for kind, statement in templates._of_the_other(registry):
        resources = [registry.flat(resource) for resource in statement["Resource"]]
        ours = [r if r == "*" or r.startswith("arn:") else RESOURCES[kind] + r.partition(">")[2] for r in resources]
        found[kind] = {**statement, "Resource": ours}
    assert found.keys() == RESOURCES.keys()
    return found


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory, given: dict[str, dict[str, Any]]) -> Iterator[Accounts]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        accounts = Accounts(cloud)
        s3, sagemaker = accounts.root("s3"), accounts.root("sagemaker")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key in ("flight-delay/runs/e1/model.tar.gz", "flight-delay/incoming/january.csv"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"bytes")
        sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
        sagemaker.create_model_package(ModelPackageGroupName=GROUP, ModelApprovalStatus="PendingManualApproval")
        # Whatever its own account may give it: what is refused below, the registry's account refuses.
        everything = {"Effect": "Allow", "Action": ["s3:*", "sagemaker:*", "kms:*", "dynamodb:*"], "Resource": "*"}
        for name in (IMPORTER, "noria-prod-reactions-DeployModelRole0A1B2C3D-9Z8Y7X"):
            accounts.make_role(name, OTHER, {"AWS": f"arn:aws:iam::{OTHER}:root"}, everything)
        s3.put_bucket_policy(Bucket=BUCKET, Policy=policy(given["AWS::S3::BucketPolicy"]))
        shared = policy(given["AWS::SageMaker::ModelPackageGroup"])
        sagemaker.put_model_package_group_policy(ModelPackageGroupName=GROUP, ResourcePolicy=shared)
        yield accounts


def test_the_importer_reads_a_package_and_what_it_is_made_of(accounts: Accounts) -> None:
    described = accounts.other("sagemaker").describe_model_package(ModelPackageName=PACKAGE)
    assert described["ModelPackageArn"] == PACKAGE
    read = accounts.other("s3").get_object(Bucket=BUCKET, Key="flight-delay/runs/e1/model.tar.gz")
    assert read["Body"].read() == b"bytes"


def test_it_reads_no_data_and_changes_nothing(accounts: Accounts) -> None:
    s3, sagemaker = accounts.other("s3"), accounts.other("sagemaker")
    with refused():
        s3.get_object(Bucket=BUCKET, Key="flight-delay/incoming/january.csv")
    with refused():
        s3.put_object(Bucket=BUCKET, Key="flight-delay/runs/e1/model.tar.gz", Body=b"others")
    with refused():
        s3.delete_object(Bucket=BUCKET, Key="flight-delay/runs/e1/model.tar.gz")
    with refused():
        sagemaker.update_model_package(ModelPackageArn=PACKAGE, ModelApprovalStatus="Approved")
    with refused():
        sagemaker.delete_model_package(ModelPackageName=PACKAGE)
    here = accounts.root("sagemaker").describe_model_package(ModelPackageName=PACKAGE)
    assert here["ModelApprovalStatus"] == "PendingManualApproval"


def test_another_role_of_that_account_reads_nothing(accounts: Accounts) -> None:
    role = "noria-prod-reactions-DeployModelRole0A1B2C3D-9Z8Y7X"
    with refused():
        accounts.other("sagemaker", role).describe_model_package(ModelPackageName=PACKAGE)
    with refused():
        accounts.other("s3", role).get_object(Bucket=BUCKET, Key="flight-delay/runs/e1/model.tar.gz")


def test_without_either_policy_nothing_can_be_promoted(accounts: Accounts, given: dict[str, dict[str, Any]]) -> None:
    s3, sagemaker = accounts.root("s3"), accounts.root("sagemaker")
    sagemaker.delete_model_package_group_policy(ModelPackageGroupName=GROUP)
    with refused():
        accounts.other("sagemaker").describe_model_package(ModelPackageName=PACKAGE)
    shared = policy(given["AWS::SageMaker::ModelPackageGroup"])
    sagemaker.put_model_package_group_policy(ModelPackageGroupName=GROUP, ResourcePolicy=shared)
    s3.delete_bucket_policy(Bucket=BUCKET)
    with refused():
        accounts.other("s3").get_object(Bucket=BUCKET, Key="flight-delay/runs/e1/model.tar.gz")
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy(given["AWS::S3::BucketPolicy"]))


def test_what_was_approved_there_is_a_version_here_whose_model_can_be_read(accounts: Accounts) -> None:
    there, here = accounts.root("sagemaker"), accounts.root("sagemaker", OTHER)
    model = f"s3://{BUCKET}/flight-delay/runs/e1/model.tar.gz"
    container = {"Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/noria-serving:1", "ModelDataUrl": model}
    types = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
    origin = there.create_model_package(
        ModelPackageGroupName=GROUP,
        ModelApprovalStatus="Approved",
        InferenceSpecification={"Containers": [container], **types},
    )["ModelPackageArn"]
    bucket, group = f"noria-prod-data-{OTHER}-{REGION}", "noria-prod-flight-delay"
    place = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    accounts.root("s3", OTHER).create_bucket(Bucket=bucket, **place)
    here.create_model_package_group(ModelPackageGroupName=group)
    accounts.root("dynamodb", OTHER).create_table(
        TableName="ledger",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "sk")],
    )

    def imported() -> Outcome:
        return import_package(
            origin=origin,
            spec=load(REPOSITORY / "models" / "flight-delay.yaml"),
            group=group,
            there=Place(account=ACCOUNT, bucket=BUCKET),
            here=Place(account=OTHER, bucket=bucket),
            registry=Registry(client=accounts.other("sagemaker")),
            storage=Storage(bucket=bucket, client=accounts.other("s3")),
            ledger=Ledger(table="ledger", client=accounts.other("dynamodb")),
            now=datetime.now(UTC),
        )

    mine, where = accounts.root("s3", OTHER), {"Bucket": bucket, "Key": "flight-delay/runs/e1/model.tar.gz"}
    mine.put_object(Body=b"forged before the import", **where)
    with pytest.raises(FileExistsError, match=r"noria-prod-data-.*/flight-delay/runs/e1/model.tar.gz is not what lies"):
        imported()
    assert here.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"] == []
    mine.delete_object(**where)
    assert [imported(), imported()] == [Outcome.IMPORTED, Outcome.KNOWN]
    (found,) = here.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    described = here.describe_model_package(ModelPackageName=found["ModelPackageArn"])
    assert found["ModelPackageArn"].split(":")[4] == OTHER
    assert described["ModelApprovalStatus"] == "Approved"
    assert described["CustomerMetadataProperties"]["noria:origin"] == origin
    (copied,) = described["InferenceSpecification"]["Containers"]
    assert copied["Image"].startswith(f"{OTHER}.dkr.ecr.")
    their_bucket, _, key = copied["ModelDataUrl"].removeprefix("s3://").partition("/")
    assert their_bucket == bucket
    assert accounts.root("s3", OTHER).get_object(Bucket=bucket, Key=key)["Body"].read() == b"bytes"

    # It died before its record, and the event comes again in a later second, of which S3's dates tell.
    theirs, registered = accounts.root("dynamodb", OTHER), found["CreationTime"].replace(microsecond=0)
    for item in theirs.scan(TableName="ledger")["Items"]:
        theirs.delete_item(TableName="ledger", Key={name: item[name] for name in ("model", "sk")})
    time.sleep(1.1)
    assert imported() is Outcome.IMPORTED
    assert len(here.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]) == 1
    assert accounts.root("s3", OTHER).head_object(Bucket=bucket, Key=key)["LastModified"] <= registered

    there.update_model_package(ModelPackageArn=origin, ModelApprovalStatus="PendingManualApproval")
    assert imported() is Outcome.NOT_APPROVED


def test_an_approval_is_heard_on_the_others_bus_where_both_let_it(accounts: Accounts) -> None:
    events, theirs, queues = accounts.root("events"), accounts.root("events", OTHER), accounts.root("sqs", OTHER)
    bus = theirs.create_event_bus(Name="noria-prod")["EventBusArn"]
    queue = queues.create_queue(QueueName="heard")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    send = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    queues.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy({**send, "Resource": arn})})
    theirs.put_rule(Name="approvals", EventBusName="noria-prod", EventPattern=json.dumps({"source": ["aws.sagemaker"]}))
    theirs.put_targets(Rule="approvals", EventBusName="noria-prod", Targets=[{"Id": "queue", "Arn": arn}])

    role = "noria-local-reactions-PromotionRole0A1B2C3D-9Z8Y7X"
    sends = {"Effect": "Allow", "Action": "events:PutEvents", "Resource": bus}
    role_arn = accounts.make_role(role, ACCOUNT, {"Service": "events.amazonaws.com"}, sends)
    pattern = {"source": ["aws.sagemaker"], "detail": {"ModelApprovalStatus": ["Approved"]}}
    events.put_rule(Name="promotion", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="promotion", Targets=[{"Id": "prod", "Arn": bus, "RoleArn": role_arn}])

    approve(accounts, "Rejected", "Approved")
    assert heard(queues, queue, seconds=2) == []  # the bus has no policy: it takes its own account's events alone
    let = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "events:PutEvents"}
    only = {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/noria-local-reactions-Promotion*"}}
    document = policy({"Sid": "HearOfApprovals", **let, "Resource": bus, "Condition": only})
    theirs.put_permission(EventBusName="noria-prod", Policy=document)
    approve(accounts, "Rejected", "Approved")
    (told,) = heard(queues, queue, seconds=10)
    assert (told["source"], told["account"]) == ("aws.sagemaker", ACCOUNT)
    assert told["detail"]["ModelPackageArn"] == PACKAGE
    assert told["detail"]["ModelApprovalStatus"] == "Approved"


def approve(accounts: Accounts, *statuses: str) -> None:
    for status in statuses:
        accounts.root("sagemaker").update_model_package(ModelPackageArn=PACKAGE, ModelApprovalStatus=status)


def heard(queues: Any, queue: str, *, seconds: float) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    found: list[dict[str, Any]] = []
    while not found and time.monotonic() < deadline:
        messages = queues.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
        found = [json.loads(message["Body"]) for message in messages]
    return found


class refused:  # noqa: N801 - reads as a word
    """A call that IAM refuses."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        assert isinstance(error, ClientError), f"allowed, or failed otherwise: {error!r}"
        assert error.response["Error"]["Code"] in {"AccessDenied", "AccessDeniedException"}, error
        return True
