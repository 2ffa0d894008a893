"""docs/security.md says who may do what: each cell of its table is asked of a cloud that has the policies."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aws_cdk
import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from local.cloud import ACCOUNT, REGION, LocalCloud
from stacks.foundation import Foundation
from stacks.roles import MODEL_TAG, PEOPLE, POLICIES, Roles
from stacks.settings import settings_for
from tests.infrastructure.assembly import CONTEXT, REPOSITORY

MINE, THEIRS = "prices", "prices-of-others"  # of which one begins with the other
DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}
UNKNOWN = {"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
BUCKET = f"noria-local-data-{ACCOUNT}-{REGION}"
ROW = re.compile(r"^\| (?P<action>[^|]+?) \| (?P<cells>(?:own|all|–)(?: \| (?:own|all|–)){4}) \|$", re.MULTILINE)

DEPLOYMENT = f"cdk-hnb659fds-deploy-role-{ACCOUNT}-{REGION}"
FUNCTION = "noria-local-reactions-DeployModelRole"

FORBIDDEN = 403


@dataclass(frozen=True)
class Client:
    """boto3's clients for whoever a session is of, by service; each is made once."""

    session: boto3.Session
    cloud: LocalCloud
    made: dict[str, Any] = field(default_factory=dict)

    def __call__(self, service: str) -> Any:
        if service not in self.made:
            self.made[service] = self.session.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.cloud.endpoint,
                verify=str(self.cloud.certificate),
            )
        return self.made[service]


Call = Callable[[Client, str, "World"], Any]


@dataclass(frozen=True)
class World:
    """What calls name: ARNs that a deployment made up."""

    cloud: LocalCloud
    table: str
    key: str
    door: str
    session: boto3.Session = field(repr=False)


def sagemaker(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/noria-local-{name}"


def put(area: str) -> Call:
    return lambda aws, model, _: aws("s3").put_object(Bucket=BUCKET, Key=f"{model}/{area}/x", Body=b"x")


def say(detail_type: str, source: str = "noria") -> Call:
    def call(aws: Client, model: str, _: World) -> Any:
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps({"model": model})}
        return aws("events").put_events(Entries=[{**entry, "EventBusName": "noria-local"}])

    return call


def update(**changes: Any) -> Call:
    return lambda aws, model, _: aws("sagemaker").update_model_package(
        ModelPackageArn=sagemaker("model-package", f"{model}/1"), **changes
    )


def ask(aws: Client, url: str) -> None:
    """A request to an HTTP API, signed by whoever the clients are of; raises as a client does where it is refused."""
    credentials = aws.session.get_credentials()
    assert credentials
    request = AWSRequest("POST", url, data=b"{}", headers={"content-type": "application/json"})
    SigV4Auth(credentials.get_frozen_credentials(), "execute-api", REGION).add_auth(request)
    answer = URLLib3Session(verify=str(aws.cloud.certificate)).send(request.prepare())  # type: ignore[arg-type] # or a path
    if answer.status_code == FORBIDDEN:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": answer.text}}, "Invoke")


def item(model: str) -> dict[str, Any]:
    return {"model": {"S": model}, "sk": {"S": "entry#000000000001"}}


def queue(name: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/noria-local-{name}"


def log(name: Callable[[str], str]) -> Call:
    return lambda aws, model, _: aws("logs").filter_log_events(logGroupName=name(model))


def stack(model: str) -> str:
    id_ = "11111111-1111-1111-1111-111111111111"
    return f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/noria-local-{model}-serving/{id_}"


def policy(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:policy/noria-local-{name}"


def assume(role: str) -> Call:
    return lambda aws, _, __: aws("sts").assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="me"
    )


CALLS: dict[str, Call] = {
    "read a report": lambda aws, model, _: aws("s3").get_object(Bucket=BUCKET, Key=f"{model}/reports/latest.html"),
    "list objects": lambda aws, model, _: aws("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{model}/reports/"),
    "upload training data": put("incoming"),
    "give labels": put("labels"),
    "ask a batch": put("batch"),
    "put a dataset past the contract": put("datasets"),
    "replace a trained model": put("runs"),
    "plant a checkpoint": put("checkpoints"),
    "forge captured requests": put("captured"),
    "delete an object": lambda aws, model, _: aws("s3").delete_object(Bucket=BUCKET, Key=f"{model}/incoming/x"),
    "delete a version of an object": lambda aws, model, _: aws("s3").delete_object(
        Bucket=BUCKET, Key=f"{model}/incoming/x", VersionId="null"
    ),
    "open the bucket": lambda aws, _, __: aws("s3").put_bucket_policy(Bucket=BUCKET, Policy="{}"),
    "read the ledger": lambda aws, model, world: aws("dynamodb").query(
        TableName=world.table,
        KeyConditionExpression="model = :model",
        ExpressionAttributeValues={":model": {"S": model}},
    ),
    "write into the ledger": lambda aws, model, world: aws("dynamodb").put_item(
        TableName=world.table, Item=item(model)
    ),
    "change the ledger": lambda aws, model, world: aws("dynamodb").update_item(
        TableName=world.table,
        Key=item(model),
        UpdateExpression="SET summary = :new",
        ExpressionAttributeValues={":new": {"S": "nothing happened"}},
    ),
    "delete from the ledger": lambda aws, model, world: aws("dynamodb").delete_item(
        TableName=world.table, Key=item(model)
    ),
    "read the whole ledger at once": lambda aws, _, world: aws("dynamodb").scan(TableName=world.table),
    "see a version": lambda aws, model, _: aws("sagemaker").describe_model_package(
        ModelPackageName=sagemaker("model-package", f"{model}/1")
    ),
    "approve a version": update(ModelApprovalStatus="Approved", ApprovalDescription="it is good"),
    "approve a version in mode strict": lambda aws, model, world: ask(aws, f"{world.door}/approvals/{model}"),
    "reject a version": update(ModelApprovalStatus="Rejected", ApprovalDescription="it is bad"),
    "change a version's metadata": update(CustomerMetadataProperties={"noria:dataset": "0" * 64}),
    "register a version by hand": lambda aws, model, _: aws("sagemaker").create_model_package(
        ModelPackageGroupName=f"noria-local-{model}", ModelApprovalStatus="Approved"
    ),
    "delete a version": lambda aws, model, _: aws("sagemaker").delete_model_package(
        ModelPackageName=sagemaker("model-package", f"{model}/2")
    ),
    "change a tag that policies compare": lambda aws, model, _: aws("sagemaker").add_tags(
        ResourceArn=sagemaker("endpoint", model), Tags=[{"Key": MODEL_TAG, "Value": MINE}]
    ),
    "start the pipeline past the policy": lambda aws, model, _: aws("sagemaker").start_pipeline_execution(
        PipelineName=f"noria-local-{model}", ClientRequestToken="0" * 64
    ),
    "see an endpoint": lambda aws, model, _: aws("sagemaker").describe_endpoint(EndpointName=f"noria-local-{model}"),
    "ask an endpoint": lambda aws, model, _: aws("sagemaker-runtime").invoke_endpoint(
        EndpointName=f"noria-local-{model}", Body=b"{}"
    ),
    "change an endpoint": lambda aws, model, _: aws("sagemaker").update_endpoint(
        EndpointName=f"noria-local-{model}", EndpointConfigName="mine"
    ),
    "delete an endpoint": lambda aws, model, _: aws("sagemaker").delete_endpoint(EndpointName=f"noria-local-{model}"),
    "see the serving stack": lambda aws, model, _: aws("cloudformation").describe_stacks(StackName=stack(model)),
    "change the serving stack": lambda aws, model, _: aws("cloudformation").update_stack(
        StackName=stack(model), UsePreviousTemplate=True
    ),
    "delete a stack": lambda aws, model, _: aws("cloudformation").delete_stack(StackName=stack(model)),
    "ask for a training": say("Retraining Wanted"),
    "ask for a change of what answers": say("Serving Requested"),
    "ask for a pause": say("Pause Requested"),
    "forge what Noria tells": say("Model Deployed"),
    "speak for a service": say("Retraining Wanted", source="mine"),
    "read dead letters": lambda aws, _, __: aws("sqs").receive_message(QueueUrl=queue("dead-letters")),
    "send a dead letter again": lambda aws, _, __: aws("sqs").send_message(
        QueueUrl=queue("deploy-model"), MessageBody="{}"
    ),
    "leave a dead letter as it was": lambda aws, _, __: aws("sqs").change_message_visibility(
        QueueUrl=queue("dead-letters"), ReceiptHandle="none", VisibilityTimeout=0
    ),
    "hide what a reaction works on": lambda aws, _, __: aws("sqs").receive_message(QueueUrl=queue("deploy-model")),
    "have archived events sent again": lambda aws, _, __: aws("events").start_replay(
        ReplayName="noria-local-own-1",
        EventSourceArn=f"arn:aws:events:{REGION}:{ACCOUNT}:archive/noria-local-own",
        EventStartTime=0,
        EventEndTime=1,
        Destination={"Arn": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/noria-local"},
    ),
    "delete an archive": lambda aws, _, __: aws("events").delete_archive(ArchiveName="noria-local-own"),
    "empty a queue": lambda aws, _, __: aws("sqs").purge_queue(QueueUrl=queue("dead-letters")),
    "read a function's log": log(lambda _: "/aws/lambda/noria-local-deploy-model"),
    "read an endpoint's log": log(lambda model: f"/aws/sagemaker/Endpoints/noria-local-{model}"),
    "read a job's log": log(lambda _: "/aws/sagemaker/TrainingJobs"),
    "see what hears events": lambda aws, _, __: aws("lambda").list_event_source_mappings(),
    "delete a log": lambda aws, model, _: aws("logs").delete_log_group(
        logGroupName=f"/aws/sagemaker/Endpoints/noria-local-{model}"
    ),
    "see alarms": lambda aws, model, _: aws("cloudwatch").describe_alarms(AlarmNamePrefix=f"noria-local-{model}-"),
    "silence an alarm": lambda aws, model, _: aws("cloudwatch").disable_alarm_actions(
        AlarmNames=[f"noria-local-{model}-drift"]
    ),
    "call a function past its queue": lambda aws, _, __: aws("lambda").invoke(FunctionName="noria-local-deploy-model"),
    "use the key past its services": lambda aws, _, world: aws("kms").decrypt(KeyId=world.key, CiphertextBlob=b"x"),
    "change the key's policy": lambda aws, _, world: aws("kms").put_key_policy(KeyId=world.key, Policy="{}"),
    "read the key's policy": lambda aws, _, world: aws("kms").get_key_policy(KeyId=world.key),
    "read who may do what": lambda aws, _, __: aws("iam").get_policy_version(
        PolicyArn=policy("operator"), VersionId="v1"
    ),
    "change who may do what": lambda aws, _, __: aws("iam").create_policy_version(
        PolicyArn=policy("operator"), PolicyDocument="{}", SetAsDefault=True
    ),
    "become somebody else": lambda aws, _, __: aws("iam").create_role(
        RoleName="somebody", AssumeRolePolicyDocument="{}"
    ),
    "act as the platform's deployment": assume(DEPLOYMENT),
    "act as a function": assume(FUNCTION),
}


def table() -> dict[str, dict[str, str]]:
    """What the document says: by action and role `own`, `all` or `–`."""
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    (header,) = re.findall(r"^\| action \| (.+) \|$", text, re.MULTILINE)
    people = header.split(" | ")
    rows = {row["action"].partition(" (")[0]: row["cells"].split(" | ") for row in ROW.finditer(text)}
    return {action: dict(zip(people, cells, strict=True)) for action, cells in rows.items()}


TABLE = table()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=port) as cloud:
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        root = Client(session, cloud)
        outputs = deploy(root, tmp_path_factory.mktemp("out"))
        for model in (MINE, THEIRS):
            tags = [{"Key": MODEL_TAG, "Value": model}]
            aws = root("sagemaker")
            aws.create_model_package_group(ModelPackageGroupName=f"noria-local-{model}", Tags=tags)
            aws.add_tags(ResourceArn=sagemaker("endpoint", model), Tags=tags)
            aws.add_tags(ResourceArn=sagemaker("pipeline", model), Tags=tags)
        for role in (DEPLOYMENT, FUNCTION):
            trusting(root, role)
        yield World(cloud, **outputs, door=open_door(root), session=session)


def open_door(root: Client) -> str:
    """An HTTP API as the reactions stack has it for approvals; behind it nobody answers. Returns its URL."""
    api = root("apigatewayv2")
    id_ = api.create_api(Name="approvals", ProtocolType="HTTP")["ApiId"]
    behind = api.create_integration(
        ApiId=id_, IntegrationType="HTTP_PROXY", IntegrationMethod="POST", IntegrationUri="http://127.0.0.1:9/"
    )["IntegrationId"]
    api.create_route(
        ApiId=id_, RouteKey="POST /approvals/{model}", AuthorizationType="AWS_IAM", Target=f"integrations/{behind}"
    )
    api.create_stage(ApiId=id_, StageName="$default", AutoDeploy=True)
    return f"{root.cloud.endpoint}/_aws/execute-api/{id_}"


def deploy(root: Client, out: Path) -> dict[str, str]:
    """The two stacks that this is about, from their templates."""
    app = aws_cdk.App(context=CONTEXT, outdir=str(out))
    place = aws_cdk.Environment(account=ACCOUNT, region=REGION)
    settings = settings_for("local")
    foundation = Foundation(app, "Foundation", env=place, settings=settings, specs=[])
    Roles(app, "Roles", env=place, settings=settings, foundation=foundation)
    app.synth()
    root("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    cloudformation = root("cloudformation")
    for part in ("Foundation", "Roles"):
        name = settings.names.environment_stack("foundation" if part == "Foundation" else "roles")
        body = (out / f"{part}.template.json").read_text()
        cloudformation.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})
    found = root("ssm").get_parameter(Name=settings.names.parameter("ledger-table"))["Parameter"]["Value"]
    resources = cloudformation.describe_stack_resources(StackName=settings.names.environment_stack("foundation"))
    (key,) = (r["PhysicalResourceId"] for r in resources["StackResources"] if r["ResourceType"] == "AWS::KMS::Key")
    return {"table": found, "key": key}


@pytest.fixture(scope="module", params=PEOPLE)
def person(world: World, request: pytest.FixtureRequest) -> tuple[str, Client]:
    """Somebody of one model, as an IAM role with the policy and the tag."""
    root = Client(world.session, world.cloud)
    role = trusting(root, f"{MINE}-{request.param}", model=MINE)
    for name in POLICIES[request.param]:
        root("iam").attach_role_policy(RoleName=f"{MINE}-{request.param}", PolicyArn=policy(name))
    return request.param, Client(assumed(root, role), world.cloud)


def trusting(root: Client, name: str, *, model: str | None = None) -> str:
    """Make a role that the account trusts; returns its ARN."""
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    arn: str = root("iam").create_role(
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{**trust, "Action": ["sts:AssumeRole", "sts:TagSession"]}]}
        ),
        Tags=[{"Key": MODEL_TAG, "Value": model}] if model else [],
    )["Role"]["Arn"]
    return arn


def assumed(root: Client, role: str, **tags: str) -> boto3.Session:
    passed = {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]} if tags else {}
    given = root("sts").assume_role(RoleArn=role, RoleSessionName="somebody", **passed)["Credentials"]
    return boto3.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=REGION,
    )


def allowed(call: Call, aws: Client, model: str, world: World) -> bool:
    """Whether IAM lets a call through; what the service then makes of it is not the question."""
    try:
        call(aws, model, world)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in UNKNOWN:
            raise
        return code not in DENIED
    return True


def test_every_action_of_the_document_is_asked_and_every_one_asked_is_in_the_document() -> None:
    assert list(TABLE) == list(CALLS)
    assert {tuple(cells) for cells in TABLE.values()} == {PEOPLE}


def test_each_cell_of_the_document_is_so(world: World, person: tuple[str, Client]) -> None:
    who, aws = person
    said = {action: cells[who] for action, cells in TABLE.items()}
    words = {(False, False): "–", (True, False): "own", (True, True): "all"}
    seen = {
        action: words.get((allowed(call, aws, MINE, world), allowed(call, aws, THEIRS, world)), "theirs alone")
        for action, call in CALLS.items()
    }
    assert seen == said


def test_whatever_else_somebody_may_nobody_asks_the_approval_function_in_anothers_name(
    world: World, person: tuple[str, Client]
) -> None:
    who, aws = person
    document = {"Effect": "Allow", "Action": ["lambda:InvokeFunction"], "Resource": "*"}
    root = Client(world.session, world.cloud)("iam")
    root.put_role_policy(
        RoleName=f"{MINE}-{who}",
        PolicyName="any-function",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [document]}),
    )
    for function, may in (("deploy-model", True), ("approve-package", False), ("approve-package:1", False)):
        call: Call = lambda aws, _, __, name=function: aws("lambda").invoke(FunctionName=f"noria-local-{name}")  # type: ignore[misc] # noqa: E731
        assert allowed(call, aws, MINE, world) is may, function
    root.delete_role_policy(RoleName=f"{MINE}-{who}", PolicyName="any-function")


def test_who_has_no_model_may_do_nothing_about_any_until_a_session_is_given_one(world: World) -> None:
    root = Client(world.session, world.cloud)
    for who in ("data-scientist", "approver", "operator"):
        role = trusting(root, f"nobodys-{who}")
        for name in POLICIES[who]:
            root("iam").attach_role_policy(RoleName=f"nobodys-{who}", PolicyArn=policy(name))
        own = [action for action, cells in TABLE.items() if cells[who] == "own"]
        untagged, tagged = (Client(assumed(root, role, **tags), world.cloud) for tags in ({}, {MODEL_TAG: MINE}))
        assert [action for action in own if allowed(CALLS[action], untagged, MINE, world)] == []
        assert [action for action in own if not allowed(CALLS[action], tagged, MINE, world)] == []
        assert [action for action in own if allowed(CALLS[action], tagged, THEIRS, world)] == []
