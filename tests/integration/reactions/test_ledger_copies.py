"""The ledger as it is deployed: it only grows, each entry has a locked copy, and whoever tampers is found out."""

# ruff: noqa: S608 -- PartiQL is built from names of our own

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aws_cdk
import boto3
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

import lambdas.export_ledger.handler as exporter
from local.cloud import ACCOUNT, REGION, LocalCloud
from noria.aws.ledger import Copies, Ledger
from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.ledger import GENESIS, Entry, Fact, Kind
from stacks.foundation import Foundation
from stacks.settings import settings_for
from tests.integration.reactions.place import Place

HANDLER = Path(exporter.__file__)
LAST_WEEK = datetime.now(UTC).replace(microsecond=0) - timedelta(days=7)


@dataclass
class Kept:
    """The foundation of an environment `dev` beside the others' shared resources, and the function that copies."""

    table: str
    bucket: str
    pages: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(table=self.table)

    @property
    def copies(self) -> Copies:
        return Copies.of(self.bucket)

    def record(self, model: str, *subjects: str) -> list[Entry]:
        for subject in subjects:
            self.ledger.record(fact(model, subject))
        entries = self.ledger.entries(model)
        eventually(lambda: self.copies.numbers(model) >= {entry.number for entry in entries})
        return entries

    def item(self, model: str, number: int) -> dict[str, Any]:
        item: dict[str, Any] = self._table.get_item(Key={"model": model, "sk": f"entry#{number:012d}"})["Item"]
        return item

    def put(self, **item: Any) -> None:
        self._table.put_item(Item=item)

    def remove(self, model: str, sort_key: str) -> None:
        """As the account's root user, whom the local cloud lets do anything."""
        self._table.delete_item(Key={"model": model, "sk": sort_key})

    @property
    def _table(self) -> Any:
        return boto3.resource("dynamodb").Table(self.table)

    def verify(self, model: str) -> tuple[int, list[tuple[int, str]]]:
        """What `noria ledger verify` says: its exit code, and each break's entry and problem."""
        answer = CliRunner().invoke(app, ["ledger", "verify", model, "--env", "dev", "--json"])
        return answer.exit_code, [(b["entry"], b["problem"]) for b in json.loads(answer.stdout)["broken"]]


def fact(model: str, subject: str, summary: str = "It happened.") -> Fact:
    return Fact(model=model, kind=Kind.MONITORED, subject=subject, at=LAST_WEEK, summary=summary, details={"psi": 0.25})


def eventually(check: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture(scope="module")
def kept(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    del place  # whose credentials and clients these are
    out = tmp_path_factory.mktemp("out")
    cdk = aws_cdk.App(outdir=str(out))
    settings = replace(settings_for("local"), env="dev")
    environment = aws_cdk.Environment(account=ACCOUNT, region=REGION)
    Foundation(cdk, "Foundation", env=environment, settings=settings, specs=[])
    cdk.synth()
    boto3.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    cloudformation = boto3.client("cloudformation")
    name = settings.names.environment_stack("foundation")
    body = (out / "Foundation.template.json").read_text()
    cloudformation.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    published = {
        parameter["Name"].rsplit("/", 1)[1]: parameter["Value"]
        for parameter in boto3.client("ssm").get_parameters_by_path(Path="/noria/dev")["Parameters"]
    }
    kept = Kept(table=published["ledger-table"], bucket=published["ledger-bucket"], pages=published["pages-topic"])
    queue = boto3.client("sqs").create_queue(QueueName="ledger-pager")["QueueUrl"]
    arn = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    sending = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    boto3.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document(sending)})
    boto3.client("sns").subscribe(TopicArn=kept.pages, Protocol="sqs", Endpoint=arn)
    _copy_what_the_stream_tells(kept)
    return kept


def _copy_what_the_stream_tells(kept: Kept) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("handler.py", HANDLER.read_text())
    role = make_role(
        "exporter",
        "lambda.amazonaws.com",
        allow(["s3:PutObject", "s3:GetObject"], f"arn:aws:s3:::{kept.bucket}/*"),
        allow(["s3:ListBucket"], f"arn:aws:s3:::{kept.bucket}"),
        allow(["sns:Publish"], kept.pages),
        allow(["kms:Decrypt", "kms:GenerateDataKey"], f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
    )
    function = boto3.client("lambda").create_function(
        FunctionName="exporter",
        Runtime="python3.11",
        Handler="handler.handler",
        Role=role,
        Code={"ZipFile": packed.getvalue()},
        Environment={
            "Variables": {name: value for name, value in os.environ.items() if name.startswith("NORIA_")}
            | {
                "NORIA_ENV": "dev",
                "NORIA_LEDGER_TABLE": kept.table,
                "NORIA_LEDGER_BUCKET": kept.bucket,
                "NORIA_PAGES_TOPIC": kept.pages,
                "NORIA_NOTICES_TOPIC": f"{kept.pages}-of-nobody",
                "POWERTOOLS_METRICS_NAMESPACE": "Noria",
            }
        },
        Timeout=30,
    )["FunctionArn"]
    stream = boto3.client("dynamodb").describe_table(TableName=kept.table)["Table"]["LatestStreamArn"]
    pattern = json.dumps({"dynamodb": {"Keys": {"sk": {"S": [{"prefix": "entry#"}]}}}})
    boto3.client("lambda").create_event_source_mapping(
        EventSourceArn=stream,
        FunctionName=function,
        StartingPosition="TRIM_HORIZON",
        FilterCriteria={"Filters": [{"Pattern": pattern}]},
    )


def allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def make_role(name: str, service: str | None, *statements: dict[str, Any]) -> str:
    iam = boto3.client("iam")
    principal = {"Service": service} if service else {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    trust = document({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
    return arn


@pytest.fixture(scope="module")
def administrator(kept: Kept, cloud: LocalCloud) -> Callable[[str], Any]:
    """Clients of somebody whose own policy allows everything."""
    del kept
    role = make_role("administrator", None, allow(["*"], "*"))
    given = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="somebody")["Credentials"]
    session = boto3.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=REGION,
    )
    return lambda service: session.client(  # type: ignore[call-overload]
        service, endpoint_url=cloud.endpoint, verify=str(cloud.certificate)
    )


def denied(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"AccessDenied", "AccessDeniedException"}:
            raise
        return True
    return False


def test_who_may_do_everything_may_only_add_to_the_ledger(kept: Kept, administrator: Callable[[str], Any]) -> None:
    (entry,) = kept.record("denied", "one")
    table, key = kept.table, {"model": {"S": "denied"}, "sk": {"S": f"entry#{entry.number:012d}"}}
    change = {"TableName": table, "Key": key, "UpdateExpression": "SET body = :b"}
    change |= {"ExpressionAttributeValues": {":b": {"S": "{}"}}}
    dynamodb = administrator("dynamodb")

    def statement(start: str) -> dict[str, str]:
        return {"Statement": f"{start} WHERE model = 'denied' AND sk = '{key['sk']['S']}'"}

    update, delete = statement(f"UPDATE \"{table}\" SET body = ''"), statement(f'DELETE FROM "{table}"')
    for call in (
        lambda: dynamodb.update_item(**change),
        lambda: dynamodb.delete_item(TableName=table, Key=key),
        lambda: dynamodb.batch_write_item(RequestItems={table: [{"DeleteRequest": {"Key": key}}]}),
        lambda: dynamodb.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": {**key}}}]}),
        lambda: dynamodb.transact_write_items(TransactItems=[{"Update": change}]),
        lambda: dynamodb.transact_write_items(TransactItems=[{"Delete": {"TableName": table, "Key": key}}]),
        lambda: dynamodb.execute_statement(**update),
        lambda: dynamodb.execute_statement(**delete),
        lambda: dynamodb.execute_transaction(TransactStatements=[delete]),
        lambda: dynamodb.batch_execute_statement(Statements=[update]),
        lambda: dynamodb.update_time_to_live(
            TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"}
        ),
    ):
        assert denied(call)
    ledger = Ledger(table=table, client=dynamodb)
    assert ledger.record(fact("denied", "two"))
    assert [e.subject for e in ledger.entries("denied")] == ["one", "two"]
    assert not denied(lambda: dynamodb.execute_statement(**statement(f'SELECT * FROM "{table}"')))


def test_a_copy_is_written_once_and_cannot_be_deleted(kept: Kept, administrator: Callable[[str], Any]) -> None:
    (entry,) = kept.record("locked", "one")
    s3, key = administrator("s3"), "locked/000000000001.json"
    place = {"Bucket": kept.bucket, "Key": key}
    assert kept.copies.read("locked") == {1: entry.body}
    assert denied(lambda: s3.put_object(**place, Body=b"{}"))
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(**place, Body=b"{}", IfNoneMatch="*")
    version = s3.list_object_versions(Bucket=kept.bucket, Prefix=key)["Versions"][0]["VersionId"]
    retention = s3.get_object_retention(**place)["Retention"]
    assert retention["Mode"] == "GOVERNANCE"
    assert retention["RetainUntilDate"] > datetime.now(UTC) + timedelta(hours=23)
    assert denied(lambda: s3.delete_object(**place, VersionId=version))
    s3.delete_object(**place)  # covers the copy with a marker, and no more
    s3.put_object(**place, Body=b"{}", IfNoneMatch="*")
    assert kept.copies.read("locked") == {1: entry.body}
    assert kept.verify("locked") == (0, [])


def test_who_removes_the_environment_empties_the_bucket_where_the_lock_allows_it(place: Place) -> None:
    s3 = place.s3
    for mode in ("GOVERNANCE", "COMPLIANCE"):
        bucket = f"to-be-removed-{mode.lower()}"
        s3.create_bucket(
            Bucket=bucket, ObjectLockEnabledForBucket=True, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        retention = {"DefaultRetention": {"Mode": mode, "Days": 1}}
        locked = {"ObjectLockEnabled": "Enabled", "Rule": retention}
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=locked)
        s3.put_object(Bucket=bucket, Key="m/000000000001.json", Body=b"{}")
    assert Storage(bucket="to-be-removed-governance").delete_everything() == 1
    s3.delete_bucket(Bucket="to-be-removed-governance")
    with pytest.raises(RuntimeError, match=r"m/000000000001\.json was not deleted"):
        Storage(bucket="to-be-removed-compliance").delete_everything()


def test_nothing_shows_where_nobody_wrote(kept: Kept) -> None:
    kept.record("whole", "one", "two", "three")
    assert kept.verify("whole") == (0, [])
    answer = CliRunner().invoke(app, ["ledger", "verify", "whole", "--env", "dev"])
    assert answer.stdout == "The ledger holds: 3 entries of whole, 3 locked copies.\n"


def edited(kept: Kept, model: str) -> None:
    item = kept.item(model, 2)
    kept.put(**item | {"body": item["body"].replace("It happened.", "It never happened.")})


def taken_out(kept: Kept, model: str) -> None:
    kept.remove(model, "entry#000000000002")


def swapped(kept: Kept, model: str) -> None:
    one, two = kept.item(model, 1), kept.item(model, 2)
    kept.put(**one | {"sk": two["sk"]})
    kept.put(**two | {"sk": one["sk"]})


def cut(kept: Kept, model: str) -> None:
    """The newest entry, with all that speaks of it."""
    kept.remove(model, "entry#000000000003")
    kept.remove(model, "meaning#monitored#three")
    kept.put(model=model, sk="head", number=2, hash=kept.item(model, 2)["hash"])


def rewritten(kept: Kept, model: str) -> None:
    """All of it, with hashes that agree."""
    previous = GENESIS
    for number, subject in enumerate(("one", "two", "three"), start=1):
        said = fact(model, subject, "It never happened." if number == 2 else "It happened.")
        entry = Entry.after(said, number=number, previous=previous)
        kept.put(model=model, sk=f"entry#{number:012d}", body=entry.body, hash=entry.hash)
        previous = entry.hash
    kept.put(model=model, sk="head", number=3, hash=previous)


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (edited, [(2, "edited"), (2, "rewritten"), (3, "unchained")]),
        (taken_out, [(2, "missing"), (2, "meaning")]),
        (swapped, [(1, "reordered"), (2, "reordered")]),
        (cut, [(3, "cut")]),
        (rewritten, [(2, "rewritten"), (3, "rewritten")]),
    ],
)
def test_whoever_tampers_is_found_out_and_paged_of(
    kept: Kept, place: Place, tamper: Callable[[Kept, str], None], found: list[tuple[int, str]]
) -> None:
    model = tamper.__name__.replace("_", "-")
    kept.record(model, "one", "two", "three")
    assert kept.verify(model) == (0, [])
    tamper(kept, model)
    code, broken = kept.verify(model)
    assert code == 1
    assert set(broken) >= set(found)
    eventually(lambda: any(f"{model}: the ledger was changed" in page for page in place.drain("ledger-pager")))
