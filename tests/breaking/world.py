"""What there is of one model in the cloud, in a form in which two models that met the same fate are equal.

What differs between two runs of the same thing is replaced by what kind of thing it is (`normal`):

| what                                                        | becomes     |
|-------------------------------------------------------------|-------------|
| the model's name, also inside of others                     | `MODEL`     |
| a moment of today or about it, in any spelling              | `TIME`      |
| a UUID, a version id, a hash, an execution's id, and the end of a name that CloudFormation made | `ID` |
| how long something took (`seconds`, `hours`, `took`)         | `DURATION`  |

What may come more than once by contract, because whoever hears it expects that (pages, events, messages, points of a
metric of which alarms see the maximum), counts once for each content. Claims are left out: they say who is busy, and
end by themselves. All else is compared as it is: objects by key and by what lies there now, the ledger by its
entries in their order, and by its whole chain being right.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
from botocore.exceptions import ClientError

from noria.ledger import verify
from tests.integration.reactions.place import BUCKET, COPIES, REACTIONS, Place

State = dict[str, Any]

_TIMES = re.compile(
    r"\b20(2[5-9]|[3-9]\d)-?\d\d-?\d\d([T ]?\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?)?( ?Z| ?UTC|[+-]\d\d:?\d\d)?\b(?!-)"
    r"|\b20(2[5-9]|[3-9]\d)/\d\d/\d\d(/\d\d(/\d\d-\d\d(-\d{3})?)?)?\b"  # of captured data
    r"|\b1[78]\d{8}(\.\d+)?\b"  # seconds since 1970
)
_IDS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # a UUID
    r"|(?<=execution/)[a-z0-9]+|(?<=runs/)[a-z0-9]{12}(?=/)|(?<=Execution )[a-z0-9]{12}\b"
    r"|\b[0-9A-F]{16,18}\b"  # a sequencer of S3
    r"|(?<!\.)\b(?=[0-9a-f]*\d)[0-9a-f]{10,}\b"  # a hash, or a part of one
    r"|(?<=-)[A-Z0-9]{8,13}\b"  # what CloudFormation adds to a name
)
_DURATIONS = {"seconds", "hours", "took"}


def normal(text: str, model: str) -> str:
    """Text of or about a model, without what no two runs have in common."""
    text = re.sub(rf"\b{re.escape(model)}\b", "MODEL", text)
    return _IDS.sub("ID", _TIMES.sub("TIME", text))


def normalised(what: Any, model: str) -> Any:
    """The same of whatever JSON can hold, keys included."""
    if isinstance(what, dict):
        return {
            normal(str(key), model): "DURATION" if key in _DURATIONS else normalised(value, model)
            for key, value in what.items()
        }
    if isinstance(what, list | tuple):
        return [normalised(each, model) for each in what]
    if what is None or isinstance(what, bool | int):
        return what
    if isinstance(what, float):
        return "TIME" if what > _LONG_AGO else what
    return normal(str(what), model)


_BOOKED = "noria.schedule"  # the source of what schedules say
_LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC).timestamp()


def _told(what: Any) -> str:
    return json.dumps(what, default=str, sort_keys=True)


@dataclass(frozen=True)
class World:
    """The part of a place that a model has; `heard` is what was told since `forget`."""

    place: Place
    model: str

    @property
    def name(self) -> str:
        return self.place.names.model(self.model)

    def forget(self) -> None:
        """What was told before the event that matters is not its effect."""
        for queue in ("ear", "pager", *map(self.place.names.queue, REACTIONS)):
            self.place.drain(queue)

    def stop_answering(self) -> None:
        """End the model's servers: hundreds of worlds are played in one cloud."""
        self.place.client("cloudformation").delete_stack(StackName=self.place.names.stack(self.model, "serving"))
        with suppress(ClientError):  # of a stack, or of none
            self.place.sagemaker.delete_endpoint(EndpointName=self.name)

    def state(self) -> State:
        """Everything, normalised. Takes what waits in the queues."""
        parts: Mapping[str, Callable[[], Any]] = {
            "objects": lambda: self._objects(BUCKET),
            "copies": lambda: self._objects(COPIES),
            "ledger": self._ledger,
            "packages": self._packages,
            "approvals": self._approvals,
            "executions": self._executions,
            "endpoint": self._endpoint,
            "stack": self._stack,
            "left behind": self._left_behind,
            "transforms": self._transforms,
            "cards": self._cards,
            "metrics": self._metrics,
        }
        state = {part: normalised(look(), self.model) for part, look in parts.items()}
        booked, told = self._booked(), self._told_once()
        for queue, messages in told.items():
            booked |= {message for message in messages if _BOOKED in message}
            told[queue] = [message for message in messages if _BOOKED not in message]
        return state | {"booked": sorted(booked), "told": {queue: said for queue, said in told.items() if said}}

    def _listed(self, service: str, operation: str, **arguments: Any) -> list[Any]:
        """All that a paginated operation lists; nothing where what it is asked about does not exist."""
        with suppress(ClientError):
            pages = self.place.client(service).get_paginator(operation).paginate(**arguments)
            key = pages.result_keys[0].parsed["value"]
            return [item for page in pages for item in page.get(key, [])]
        return []

    # --- objects

    def _objects(self, bucket: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self._listed("s3", "list_objects_v2", Bucket=bucket, Prefix=f"{self.model}/"):
            found.setdefault(normal(each["Key"], self.model), []).append(self._content(bucket, each["Key"]))
        return {key: sorted(contents) for key, contents in found.items()}

    def _content(self, bucket: str, key: str) -> str:
        body = self.place.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if key.endswith(".parquet"):
            return "\n".join(sorted(_told(normalised(row, self.model)) for row in _rows(body)))
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return "an archive"
        with suppress(ValueError):
            return _told([normalised(json.loads(line), self.model) for line in text.splitlines()])
        with suppress(ValueError):
            return _told(normalised(json.loads(text), self.model))
        return normal(text, self.model)

    # --- the ledger

    def _ledger(self) -> dict[str, Any]:
        entries = self.place.ledger.entries(self.model)
        return {
            "entries": [(entry.kind, entry.subject, entry.summary, entry.details) for entry in entries],
            "broken": [str(broken) for broken in verify(entries)],
        }

    # --- SageMaker and CloudFormation

    def _packages(self) -> list[Any]:
        listed = self._listed("sagemaker", "list_model_packages", ModelPackageGroupName=self.name)
        packages = (
            self.place.sagemaker.describe_model_package(ModelPackageName=each["ModelPackageArn"]) for each in listed
        )
        kept = ("ModelPackageArn", "ModelApprovalStatus", "ApprovalDescription", "CustomerMetadataProperties")
        return sorted([{name: each.get(name) for name in kept} for each in packages], key=_told)

    def _approvals(self) -> list[Any]:
        """Which versions are approved, whoever said so last."""
        return sorted((each["ModelPackageArn"], each["ModelApprovalStatus"]) for each in self._packages())

    def _executions(self) -> list[Any]:
        found = []
        for each in self._listed("sagemaker", "list_pipeline_executions", PipelineName=self.name):
            arn = each["PipelineExecutionArn"]
            parameters = self.place.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
            found.append((each["PipelineExecutionStatus"], parameters["PipelineParameters"]))
        return found

    def _endpoint(self) -> Any:
        with suppress(ClientError):
            endpoint = self.place.sagemaker.describe_endpoint(EndpointName=self.name)
            config = self.place.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
            variants = [
                (v["VariantName"], v["InitialVariantWeight"], self._package_of(v["ModelName"]))
                for kind in ("ProductionVariants", "ShadowProductionVariants")
                for v in config.get(kind, [])
            ]
            return {"status": endpoint["EndpointStatus"], "variants": variants}
        return None

    def _package_of(self, name: str) -> str:
        container = self.place.sagemaker.describe_model(ModelName=name)["PrimaryContainer"]
        package: str = container["ModelPackageName"]
        return package

    def _stack(self) -> Any:
        with suppress(ClientError):
            stack = self.place.client("cloudformation").describe_stacks(
                StackName=self.place.names.stack(self.model, "serving")
            )["Stacks"][0]
            parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
            return {"status": stack["StackStatus"], "parameters": parameters}
        return None

    def _left_behind(self) -> dict[str, int]:
        """How many models and endpoint configs there are, whoever uses them."""
        kinds = {"models": "list_models", "configs": "list_endpoint_configs"}
        return {kind: len(self._listed("sagemaker", ask, NameContains=self.name)) for kind, ask in kinds.items()}

    def _transforms(self) -> list[Any]:
        listed = self._listed("sagemaker", "list_transform_jobs")
        return [each["TransformJobStatus"] for each in listed if self.model in each["TransformJobName"]]

    def _cards(self) -> list[Any]:
        listed = self._listed("sagemaker", "list_model_cards", NameContains=self.name)
        cards = (self.place.sagemaker.describe_model_card(ModelCardName=each["ModelCardName"]) for each in listed)
        return [(card["ModelCardName"], card["ModelCardStatus"], json.loads(card["Content"])) for card in cards]

    # --- what will be, and what was told

    def _booked(self) -> set[str]:
        """What schedules will say. Some say it while a test goes on: what they have said counts as booked, too."""
        scheduler = self.place.client("scheduler")
        names = [each["Name"] for each in self._listed("scheduler", "list_schedules", GroupName="noria-local")]
        found = [scheduler.get_schedule(GroupName="noria-local", Name=name) for name in names if self.model in name]
        return {self._content_of(json.loads(each["Target"].get("Input", "{}"))) for each in found}

    def _metrics(self) -> list[Any]:
        """Of each metric the largest and the smallest value; alarms see these, and a repeated point changes neither."""
        now, found = datetime.now(UTC), []
        for metric in self._listed("cloudwatch", "list_metrics", Namespace="Noria"):
            if not any(
                self.model in re.split(r"\W", each["Value"]) or each["Value"] == self.name
                for each in metric["Dimensions"]
            ):
                continue
            points = self.place.client("cloudwatch").get_metric_statistics(
                Namespace="Noria",
                MetricName=metric["MetricName"],
                Dimensions=metric["Dimensions"],
                StartTime=now - timedelta(days=4),
                EndTime=now + timedelta(days=1),
                Period=10 * 86400,
                Statistics=["Minimum", "Maximum"],
            )["Datapoints"]
            span = (min(p["Minimum"] for p in points), max(p["Maximum"] for p in points)) if points else None
            found.append((metric["MetricName"], sorted(metric["Dimensions"], key=_told), span))
        return sorted(found, key=_told)

    def _told_once(self) -> dict[str, list[str]]:
        """Each content once, of what was said about this model on the bus, to people, and to reactions."""
        heard = {queue: self._about(self.place.drain(queue)) for queue in ("ear", "pager")}
        heard |= {reaction: self._about(self.place.drain(self.place.names.queue(reaction))) for reaction in REACTIONS}
        return heard

    def _about(self, bodies: Iterable[str]) -> list[str]:
        own = re.compile(rf"\b{re.escape(self.model)}\b")
        return sorted({self._content_of(json.loads(body)) for body in bodies if own.search(body)})

    def _content_of(self, message: dict[str, Any]) -> str:
        """A page's words, or what an event says; the envelope is the messenger's."""
        parts = ("Subject", "Message") if "Subject" in message else ("source", "detail-type", "detail")
        return _told(normalised([message.get(part) for part in parts], self.model))


def _rows(parquet: bytes) -> list[tuple[Any, ...]]:
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(parquet)
        file.flush()
        return duckdb.read_parquet(file.name).fetchall()


def differences(expected: State, found: State) -> list[str]:
    """What is not the same, part by part, as a person would want to read it."""
    said = []
    for part, wanted in expected.items():
        if found[part] != wanted:
            said += [f"{part}: {line}" for line in _compare(wanted, found[part])]
    return said


def _compare(wanted: Any, got: Any, at: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        return [
            line
            for key in sorted({*wanted, *got})
            if wanted.get(key) != got.get(key)
            for line in _compare(wanted.get(key), got.get(key), f"{at}/{key}")
        ]
    if isinstance(wanted, list) and isinstance(got, list):
        missing = [each for each in wanted if each not in got]
        more = [each for each in got if each not in wanted]
        lines = [f"{at} lacks {_told(each)[:1500]}" for each in missing]
        lines += [f"{at} has {_told(each)[:1500]}" for each in more]
        return lines or [f"{at} has the same in another order or number: {len(wanted)} and {len(got)}"]
    return [f"{at} is {_told(got)[:700]} instead of {_told(wanted)[:700]}"]
