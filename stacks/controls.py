"""What NIST 800-53 and PCI DSS, as cdk-nag reads them, ask for and Noria answers otherwise: each with its reason.

A reason stands for one construct and what is under it. What a rule finds elsewhere stops the synth.
"""

from collections.abc import Iterator

from aws_cdk import App, CfnResource, Stack
from constructs import IConstruct

from stacks.constructs.burn_alarms import BurnAlarms
from stacks.constructs.endpoint_alarms import EndpointAlarms
from stacks.constructs.paging import OnePage
from stacks.constructs.permissions import answer
from stacks.constructs.reaction import Reaction
from stacks.foundation import Foundation
from stacks.front_door import FrontDoor
from stacks.network import Network
from stacks.serving import Serving

NO_VPC = (
    "It calls AWS's own APIs over TLS and nothing else; `network` in stacks/settings.py puts it into a network where "
    "there has to be one."
)
BOUNDED = (
    "Its queue starts at most as many at a time as its event source says, or its events are few: a model's trainings "
    "and deployments. Reserved concurrency would take that many from the account's other functions for ever."
)
QUEUED = "A queue whose dead letters page stands before it: nothing invokes it asynchronously."

ONE_PAGE = "A composite alarm tells somebody, once for all that have the same cause: stacks/constructs/paging.py."

INSTANCES = (
    "Its volumes hold a copy of the model, whose original is encrypted with our key; SageMaker refuses a key for "
    "instances with local storage, which encrypt by themselves."
)


def explain(app: App) -> None:
    """Give every finding that is meant so its reason; others stop the synth."""
    for stack in (child for child in app.node.children if isinstance(child, Stack)):
        for construct, rule, because in _reasons(stack):
            answer(construct, rule, because)


def _reasons(stack: Stack) -> Iterator[tuple[IConstruct, str, str]]:
    match stack:
        case Foundation():
            yield from _of_what_is_kept(stack)
        case Network():
            yield (
                stack,
                "VPCDefaultSecurityGroupClosed",
                "Nothing is in it, for all that is in the network names groups of its own.",
            )
        case FrontDoor():
            function = stack.node.find_child("Function")
            yield function, "LambdaInsideVPC", NO_VPC
            yield (
                function,
                "LambdaConcurrency",
                "The API before it lets through so many requests a second, and no more.",
            )
            yield function, "LambdaDLQ", "It is called by somebody who waits for the answer, and hears of a failure."
            for what in ("errors", "latency"):
                yield stack.node.find_child(f"Alarm-{what}"), "CloudWatchAlarmAction", ONE_PAGE
        case Serving():
            yield from _of_what_answers(stack)
    for page in (child for child in stack.node.children if isinstance(child, OnePage)):
        for alarm in page.alarms:
            yield alarm, "CloudWatchAlarmAction", ONE_PAGE
    for burn in (child for child in stack.node.children if isinstance(child, BurnAlarms)):
        yield burn, "CloudWatchAlarmAction", "Each alarm in it is one of two windows; the composite of both tells."
    for reaction in (child for child in stack.node.children if isinstance(child, Reaction)):
        of_logs = reaction.node.id == "KeepPredictions"
        yield reaction.function, "LambdaInsideVPC", NO_VPC
        yield (
            reaction.function,
            "LambdaConcurrency",
            "An endpoint's log starts it: the endpoint's own concurrency is its bound." if of_logs else BOUNDED,
        )
        yield (
            reaction.function,
            "LambdaDLQ",
            "What fails goes to its queue, as its event invoke config says, and from there to dead letters."
            if of_logs
            else QUEUED,
        )


def _of_what_is_kept(stack: Stack) -> Iterator[tuple[IConstruct, str, str]]:
    replicated = "S3BucketReplicationEnabled"
    yield (
        stack.node.find_child("Data"),
        replicated,
        "People's data stays in the region that was chosen for it: versions keep what is overwritten or deleted.",
    )
    yield (
        stack.node.find_child("LedgerCopies"),
        replicated,
        "It is a copy itself, locked against deletion: of the ledger, which the table keeps and can restore.",
    )
    logs = stack.node.find_child("AccessLogs")
    yield logs, replicated, "Logs of accesses end after some days: who loses them has lost no data."
    yield logs, "S3DefaultEncryptionKMS", "S3 delivers access logs to no bucket that is encrypted with a KMS key."
    yield (
        stack.node.find_child("Ledger"),
        "DynamoDBInBackupPlan",
        "Point-in-time recovery brings back any second of the last 35 days, and each entry has a locked copy in S3.",
    )
    if trail := stack.node.try_find_child("Trail"):
        files = trail.node.find_child("Files")
        yield files, replicated, "Its files are locked, and stay in the region of what they tell of."
        yield (
            trail,
            "CloudTrailCloudWatchLogsEnabled",
            "Data events are many and dear in CloudWatch; they are read from S3, and Noria's own alarms need none.",
        )


def _of_what_answers(stack: Stack) -> Iterator[tuple[IConstruct, str, str]]:
    for child in stack.node.children:
        if isinstance(child, EndpointAlarms):
            yield (
                child,
                "CloudWatchAlarmAction",
                "SageMaker or deploy_model looks at it and goes back; what pages somebody is that it did.",
            )
        elif isinstance(child, CfnResource) and child.cfn_resource_type == "AWS::SageMaker::EndpointConfig":
            yield (
                child,
                "SageMakerEndpointConfigurationKMSKeyConfigured",
                INSTANCES,
            )
