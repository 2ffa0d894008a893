"""Events: what AWS and Noria say, as types.

| source             | detail-type                                             | model                            |
|--------------------|---------------------------------------------------------|----------------------------------|
| aws.s3             | Object Created                                          | `ObjectCreated`                  |
| aws.sagemaker      | SageMaker Model Building Pipeline Execution Status Change | `PipelineExecutionStatusChange` |
| aws.sagemaker      | SageMaker Model Package State Change                    | `ModelPackageStateChange`        |
| aws.sagemaker      | SageMaker Endpoint State Change                         | `EndpointStateChange`            |
| aws.sagemaker      | SageMaker Endpoint Deployment State Change              | `EndpointDeploymentStateChange`  |
| aws.sagemaker      | SageMaker Transform Job State Change                    | `TransformJobStateChange`        |
| aws.cloudwatch     | CloudWatch Alarm State Change                           | `AlarmStateChange`               |
| aws.cloudformation | CloudFormation Stack Status Change                      | `StackStatusChange`              |
| noria.schedule     | Monitor Model, Start Training, … Export Ledger          | `Tick`                           |
| noria              | Dataset Accepted, Labels Told, … Serving Requested      | `DatasetAccepted`, …             |

Shapes: EventBridge events reference and the services' own guides; each fixture in `tests/events` names its page.
Fields that nobody here reads are left out: AWS may add more at any time.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, overload

from pydantic import AliasPath, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from noria import policy
from noria.names import EVENT_SOURCE

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef


CORRELATION = r"[A-Za-z0-9._:/#@=+-]{1,128}"
"""An id that goes with everything that one event leads to: in the events, ledger entries, log lines and pages of it."""


class EventError(ValueError):
    """A message that is not an event this reaction takes; says what was expected and what came."""


class Shape(BaseModel):
    """AWS's door: values do not change, unknown fields are none of our business."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True)


class Event(Shape):
    """An EventBridge event. Subclasses fix `source` and `detail_type` to one value each."""

    source: str
    detail_type: str = Field(alias="detail-type")

    SOURCE: ClassVar[str]
    DETAIL_TYPES: ClassVar[tuple[str, ...]]


class AwsEvent(Event):
    id: str
    time: AwareDatetime
    account: str
    region: str
    resources: tuple[str, ...] = ()


# --- S3 ---------------------------------------------------------------------------------------------------------------


class S3Object(Shape):
    key: str
    size: int = 0
    version: str = Field(alias="version-id", description="present because the data bucket is versioned")
    sequencer: str = Field("", description="hexadecimal; of the versions under one key, the larger came later")


class ObjectCreatedDetail(Shape):
    """`requester` and `request` are None where the reconciler says again what S3 failed to tell."""

    bucket: str = Field(validation_alias=AliasPath("bucket", "name"))
    object: S3Object
    requester: str | None = Field(None, description="AWS account that sent it, or AWS service; S3 tells no user")
    request: str | None = Field(None, alias="request-id", description="by which CloudTrail knows who it was")


class ObjectCreated(AwsEvent):
    SOURCE = "aws.s3"
    DETAIL_TYPES = ("Object Created",)
    detail: ObjectCreatedDetail


# --- SageMaker --------------------------------------------------------------------------------------------------------


class PipelineExecutionDetail(Shape):
    pipeline_arn: str = Field(alias="pipelineArn")
    execution_arn: str = Field(alias="pipelineExecutionArn")
    status: str = Field(alias="currentPipelineExecutionStatus")

    @property
    def pipeline(self) -> str:
        return self.pipeline_arn.rsplit("/", 1)[-1]


class PipelineExecutionStatusChange(AwsEvent):
    SOURCE = "aws.sagemaker"
    DETAIL_TYPES = ("SageMaker Model Building Pipeline Execution Status Change",)
    detail: PipelineExecutionDetail


class ModelPackageDetail(Shape):
    group: str = Field(alias="ModelPackageGroupName")
    package: str = Field(alias="ModelPackageArn")
    approval: str | None = Field(None, alias="ModelApprovalStatus")
    modified: AwareDatetime | None = Field(None, alias="LastModifiedTime")
    updated_fields: tuple[str, ...] | None = Field(None, alias="UpdatedModelPackageFields")


CONTENT_FIELDS = frozenset({"InferenceSpecification", "CustomerMetadataProperties", "SourceUri"})
"""Fields of a package that decide what it serves, or say what it was made of: `noria.approval.content`."""


class ModelPackageStateChange(AwsEvent):
    SOURCE = "aws.sagemaker"
    DETAIL_TYPES = ("SageMaker Model Package State Change",)
    detail: ModelPackageDetail

    @property
    def is_decision(self) -> bool:
        """Whether somebody approved or rejected. Marking its metadata sends the same event without that field."""
        fields = self.detail.updated_fields
        return fields is None or "ModelApprovalStatus" in fields

    @property
    def is_change(self) -> bool:
        """Whether what the package serves may be another now."""
        return self.detail.updated_fields is not None and not CONTENT_FIELDS.isdisjoint(self.detail.updated_fields)

    @property
    def decided_at(self) -> datetime:
        """When it was decided, to the second: what tells one decision on a package from the next."""
        return (self.detail.modified or self.time).replace(microsecond=0)


class EndpointDetail(Shape):
    endpoint: str = Field(alias="EndpointName")
    status: str = Field(alias="EndpointStatus", description="in capitals, as IN_SERVICE, where the API says InService")


class EndpointStateChange(AwsEvent):
    SOURCE = "aws.sagemaker"
    DETAIL_TYPES = ("SageMaker Endpoint State Change",)
    detail: EndpointDetail


class EndpointDeploymentStateChange(AwsEvent):
    SOURCE = "aws.sagemaker"
    DETAIL_TYPES = ("SageMaker Endpoint Deployment State Change",)
    detail: EndpointDetail


class TransformJobDetail(Shape):
    job: str = Field(alias="TransformJobName")
    status: str = Field(alias="TransformJobStatus", description="Completed, Failed or Stopped, once it has ended")
    failure: str | None = Field(None, alias="FailureReason")
    input: str = Field(
        validation_alias=AliasPath("TransformInput", "DataSource", "S3DataSource", "S3Uri"),
        description="S3 URI of what it reads",
    )


class TransformJobStateChange(AwsEvent):
    SOURCE = "aws.sagemaker"
    DETAIL_TYPES = ("SageMaker Transform Job State Change",)
    detail: TransformJobDetail


# --- CloudWatch, CloudFormation ---------------------------------------------------------------------------------------


class AlarmState(Shape):
    value: Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
    reason: str = ""
    at: AwareDatetime = Field(alias="timestamp")


class AlarmDetail(Shape):
    alarm: str = Field(alias="alarmName")
    state: AlarmState


class AlarmStateChange(AwsEvent):
    SOURCE = "aws.cloudwatch"
    DETAIL_TYPES = ("CloudWatch Alarm State Change",)
    detail: AlarmDetail


class StackDetail(Shape):
    stack_id: str = Field(alias="stack-id")
    status: str = Field(validation_alias=AliasPath("status-details", "status"))
    token: str = Field("", alias="client-request-token", description="of the operation that this is about")

    @property
    def stack(self) -> str:
        """The stack's name: `arn:…:stack/<name>/<uuid>`."""
        return self.stack_id.split("/")[1]


class StackStatusChange(AwsEvent):
    SOURCE = "aws.cloudformation"
    DETAIL_TYPES = ("CloudFormation Stack Status Change",)
    detail: StackDetail


# --- DynamoDB ---------------------------------------------------------------------------------------------------------


class TableChange(Shape):
    """A record of a table's stream; `key` and `item` (None once it is gone) have DynamoDB's typed values."""

    what: Literal["INSERT", "MODIFY", "REMOVE"] = Field(alias="eventName")
    key: dict[str, dict[str, Any]] = Field(validation_alias=AliasPath("dynamodb", "Keys"))
    item: dict[str, dict[str, Any]] | None = Field(None, validation_alias=AliasPath("dynamodb", "NewImage"))


def table_changes(message: Mapping[str, Any]) -> list[TableChange] | None:
    """What a table's stream tells; None for a message of another source. Raises `EventError`."""
    records = message.get("Records") or []
    if not records or any(record.get("eventSource") != "aws:dynamodb" for record in records):
        return None
    try:
        return [TableChange.model_validate(record) for record in records]
    except ValidationError as error:
        raise EventError(f"a record of a table's stream: {error}") from error


class StreamFailure(Shape):
    """Lambda's note of records of a stream that it gave up; they are not in it."""

    batch: dict[str, Any] = Field(alias="DDBStreamBatchInfo")


def is_stream_failure(message: Mapping[str, Any]) -> bool:
    """Whether an SQS message is such a note. Source: Lambda guide, `services-dynamodb-errors`."""
    try:
        (record,) = message["Records"]
        StreamFailure.model_validate_json(record["body"])
    except (KeyError, TypeError, ValueError):
        return False
    return True


# --- Noria's schedules ------------------------------------------------------------------------------------------------


class TickDetail(Shape):
    model: str | None = None
    time: AwareDatetime = Field(description="the time that was scheduled, not the time of delivery")
    since: AwareDatetime | None = Field(None, description="of a window that a person asks for: where it starts")
    alarm: str | None = Field(None, description="of a re-check: the alarm to look at again")
    attempt: int = Field(0, ge=0, description="of a probe: how often it has been put off")
    deployment: str | None = Field(None, description="of an advance: the step that has answered for long enough")
    package: str | None = Field(None, description="of a look at one: which package")
    by: str | None = Field(None, description="of a window that a person asks for: who")
    correlation: str | None = Field(None, description="of what booked it", pattern=f"^{CORRELATION}$")


class Tick(Event):
    """What a schedule says. The envelope is written by hand in the schedule's input, so it has no id."""

    SOURCE = "noria.schedule"
    DETAIL_TYPES = (
        "Monitor Model",
        "Start Training",
        "Reconcile",
        "Recheck Alarm",
        "Join Labels",
        "Recheck Data",
        "Probe Deployment",
        "Advance Challenger",
        "Confirm Deployment",
        "Export Ledger",
        "Look At Package",
        "Keep Hours",
    )
    detail: TickDetail

    @classmethod
    def message(cls, detail_type: str, **detail: str | int | datetime) -> str:
        """The body of a message that says it."""
        written = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in detail.items()}
        return json.dumps({"source": cls.SOURCE, "detail-type": detail_type, "detail": written})

    @property
    def model(self) -> str:
        if self.detail.model is None:
            raise EventError(f"a {self.detail_type!r} tick names no model")
        return self.detail.model


# --- Noria's own ------------------------------------------------------------------------------------------------------


def _correlation(told: Any) -> str | None:
    """What can be a correlation; None of what others wrote there, for which no event is refused."""
    return told if isinstance(told, str) and re.fullmatch(CORRELATION, told) else None


class Detail(BaseModel):
    """What an event of Noria tells; `model` is in each of them, so that a rule can ask for one model's events.

    Who publishes it puts the `correlation` in; an event of others without one begins a chain of its own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    correlation: Annotated[str | None, BeforeValidator(_correlation)] = None


class NoriaEvent(Event):
    SOURCE = EVENT_SOURCE

    source: str = EVENT_SOURCE
    detail: Detail

    @classmethod
    def of(cls, detail: Detail) -> Self:
        return cls.model_validate({"detail-type": cls.DETAIL_TYPES[0], "detail": detail.model_dump()})

    def entry(self, bus: str, *, correlation: str | None = None) -> "PutEventsRequestEntryTypeDef":
        """The PutEvents entry that puts this on `bus`, as an effect of what has this correlation."""
        detail = self.detail.model_copy(update={"correlation": correlation})
        return {
            "EventBusName": bus,
            "Source": self.source,
            "DetailType": self.detail_type,
            "Detail": detail.model_dump_json(exclude=None if correlation else {"correlation"}),
        }


class Dataset(Detail):
    dataset: str = Field(description="SHA-256 of the file")
    key: str = Field(description="the upload")
    version: str
    rows: int


class DatasetAccepted(NoriaEvent):
    DETAIL_TYPES = ("Dataset Accepted",)
    detail: Dataset


class Label(BaseModel):
    """What came of one prediction: `row` of the request that was sent with, or given, that id."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    inference_id: str = Field(min_length=1)
    row: int = Field(0, ge=0)
    label: bool | int | float | str


class Labels(Detail):
    labels: tuple[Label, ...] = Field(min_length=1)
    told_at: AwareDatetime | None = Field(
        None, description="when the outcomes were found or corrected; when the event is read, where left out"
    )


class LabelsTold(NoriaEvent):
    """What became known of predictions. `id` is the envelope's: EventBridge gives it, and it is empty before."""

    DETAIL_TYPES = ("Labels Told",)
    id: str = Field("", pattern=r"^[A-Za-z0-9-]*$")
    detail: Labels


class Quarantine(Detail):
    key: str
    version: str
    report: str = Field(description="S3 URI")
    problems: int


class DatasetQuarantined(NoriaEvent):
    DETAIL_TYPES = ("Dataset Quarantined",)
    detail: Quarantine


class Retraining(Detail):
    request: str = Field(description="names what asked: a dataset, an alarm's transition, a re-check, a person's wish")
    cause: policy.Cause
    reasons: tuple[str, ...]
    again_at: AwareDatetime | None = Field(None, description="when a declined one is looked at again")


class RetrainingRequested(NoriaEvent):
    DETAIL_TYPES = ("Retraining Requested",)
    detail: Retraining


class RetrainingDeclined(NoriaEvent):
    DETAIL_TYPES = ("Retraining Declined",)
    detail: Retraining


class Wish(Detail):
    """What a person asks. `request` names it: asked twice under one name, it is done once."""

    reason: str = Field(min_length=1)
    by: str
    requested_at: AwareDatetime
    request: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class RetrainingWish(Wish):
    """That a model is trained anew; `force`: over the budget, too."""

    force: bool = False


class RetrainingWanted(NoriaEvent):
    DETAIL_TYPES = ("Retraining Wanted",)
    detail: RetrainingWish


class Training(Detail):
    execution: str
    outcome: Literal["succeeded", "refused", "failed"] = Field(description="refused: by the gate")
    package: str | None = Field(None, description="that awaits approval")


class TrainingEnded(NoriaEvent):
    DETAIL_TYPES = ("Training Ended",)
    detail: Training


class Deployment(Detail):
    """What came of a change of the endpoint. `package`, `challenger`, `percent` and `shadow` are what was asked for."""

    deployment: str
    package: str
    challenger: str | None = None
    percent: int = 0
    shadow: str | None = None
    live: str | None = Field(description="the champion's package that answers now")
    reason: str


class ModelDeployed(NoriaEvent):
    DETAIL_TYPES = ("Model Deployed",)
    detail: Deployment


class ModelRolledBack(NoriaEvent):
    DETAIL_TYPES = ("Model Rolled Back",)
    detail: Deployment


class ServingRequest(Wish):
    """What a person asks of an endpoint.

    `package` is the challenger or shadow that is to begin, or the version to roll back to; of promote and abandon the
    challenger that is meant. `percent` is the challenger's share of the requests. No package ends a shadow.
    """

    action: Literal["traffic", "shadow", "promote", "abandon", "rollback", "retire"]
    package: str | None = None
    percent: int | None = None


class ServingRequested(NoriaEvent):
    DETAIL_TYPES = ("Serving Requested",)
    detail: ServingRequest


class PauseRequest(Wish):
    """That nothing begins for a model by itself, until a time or for good; or that it does again."""

    action: Literal["pause", "resume"]
    until: AwareDatetime | None = None


class PauseRequested(NoriaEvent):
    """`time` is the envelope's: EventBridge gives it, and there is none before."""

    DETAIL_TYPES = ("Pause Requested",)
    time: AwareDatetime | None = None
    detail: PauseRequest

    @property
    def asked(self) -> PauseRequest:
        """The wish, at the time of EventBridge's clock: people's own differ, and would decide who asked last."""
        return self.detail.model_copy(update={"requested_at": self.time or self.detail.requested_at})


class SentAgain(Detail):
    """What a person had sent again that a model's reactions hear: dead letters of one, or what the archives hold."""

    how: Literal["redrive", "replay"]
    reactions: tuple[str, ...] = Field(min_length=1)
    count: int | None = Field(None, description="of dead letters; of a replay nobody knows")
    since: AwareDatetime | None = Field(None, description="of a replay: from when")
    until: AwareDatetime | None = Field(None, description="of a replay: to when")
    by: str
    at: AwareDatetime
    request: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class EventsSentAgain(NoriaEvent):
    DETAIL_TYPES = ("Events Sent Again",)
    detail: SentAgain


# --- Correlation ------------------------------------------------------------------------------------------------------


class Heard(NamedTuple):
    """Which event a function hears, and the id of what that is an effect of: the event's own where it begins a chain.

    A schedule's message has no id: SQS's, which stays the same at each delivery, stands for it.
    """

    event: str | None
    correlation: str | None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Self:
        """From what Lambda hands a function: messages of a queue, records of the ledger's stream, or a request."""
        if not (records := message.get("Records")):
            request = message.get("requestContext", {}).get("requestId")
            return cls(request, request)
        record = records[0]
        body = _json(record.get("body"))
        event = body.get("id") or record.get("eventID") or record.get("messageId")
        entry = _json(record.get("dynamodb", {}).get("NewImage", {}).get("body", {}).get("S"))
        told = entry.get("correlation") or _details(body).get("correlation")
        return cls(event, _correlation(told) or event)


def correlated(event: str, correlation: str | None) -> str:
    """An event, as JSON, as an effect of what has this correlation. One that says whose effect it is keeps that."""
    if correlation is None:
        return event
    body = json.loads(event)
    return json.dumps(body | {"detail": {"correlation": correlation} | body["detail"]})


def _json(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _details(body: Mapping[str, Any]) -> Mapping[str, Any]:
    detail = body.get("detail")
    return detail if isinstance(detail, dict) else {}


# --- The door ---------------------------------------------------------------------------------------------------------

A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)
D = TypeVar("D", bound=Event)
E = TypeVar("E", bound=Event)


@overload
def parse(message: Mapping[str, Any], first: type[A], /) -> A: ...
@overload
def parse(message: Mapping[str, Any], first: type[A], second: type[B], /) -> A | B: ...
@overload
def parse(message: Mapping[str, Any], first: type[A], second: type[B], third: type[C], /) -> A | B | C: ...
@overload
def parse(
    message: Mapping[str, Any], first: type[A], second: type[B], third: type[C], fourth: type[D], /
) -> A | B | C | D: ...
@overload
def parse(
    message: Mapping[str, Any], first: type[A], second: type[B], third: type[C], fourth: type[D], fifth: type[E], /
) -> A | B | C | D | E: ...
def parse(message: Mapping[str, Any], /, *types: type[Event]) -> Event:
    """The event in a Lambda function's SQS message (one record, whose body is the event), as one of `types`.

    Raises `EventError` naming what was wrong.
    """
    try:
        (record,) = message["Records"]
        body = json.loads(record["body"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EventError(f"not an SQS event of one record with a JSON body: {error}") from error
    if not isinstance(body, dict):
        raise EventError(f"the record's body is not an event but {type(body).__name__}")
    said = (body.get("source"), body.get("detail-type"))
    for kind in types:
        if said[0] == kind.SOURCE and said[1] in kind.DETAIL_TYPES:
            try:
                return kind.model_validate(body)
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                raise EventError(f"{said[1]!r} event {body.get('id')}: {wrong}") from error
    taken = ", ".join(f"{kind.SOURCE} {'|'.join(kind.DETAIL_TYPES)!r}" for kind in types)
    raise EventError(f"{said[0]} {said[1]!r} is not for this reaction, which takes: {taken}")
