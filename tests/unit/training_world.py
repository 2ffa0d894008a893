"""AWS as far as training meets it, in memory: pipeline executions and their jobs, alarms, data, and Noria's bus.

What `tests.unit.serving_world` has (calls that can be a function's last, messages that come twice, late or in any
order, schedules, a ledger's table), and what it lacks for training.
"""

import io
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from noria.evaluation import Evaluation
from tests.unit.serving_world import ACCOUNT, GROUP, MODEL, NAMES, REGION, Pages, World, error

BUCKET = "b"

End = Literal["succeeded", "refused", "failed"]

HEARS = {
    "Dataset Accepted": "request-retraining",
    "Retraining Wanted": "request-retraining",
    "Training Ended": "request-retraining",
    "Retraining Requested": "start-training",
}
"""Which queue gets which of Noria's own events."""

SLICE = {"rows": 100, "first_event": "2013-01-25T00:00:00Z", "last_event": "2013-01-31T00:00:00Z"}


@dataclass
class Execution:
    arn: str
    token: str
    began: datetime
    status: str = "Executing"
    changed: datetime | None = None
    end: End | None = None
    seconds: int = 0
    package: str | None = None

    @property
    def hours(self) -> float:
        return self.seconds / 3600


@dataclass
class TrainingWorld(World):
    executions: dict[str, Execution] = field(default_factory=dict)
    objects: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)
    transitions: list[str] = field(default_factory=list)
    looked: set[tuple[str, str]] = field(default_factory=set)

    # --- what happens

    @property
    def running(self) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.end is None]

    def say(self, queue: str, source: str, detail_type: str, detail: dict[str, Any]) -> None:
        self.put(queue, source, detail_type, detail)

    def finish(self, end: End, *, heard: bool, minutes: int = 6) -> None:  # type: ignore[override]
        """End the execution under way, whose only job took so long."""
        (execution,) = self.running
        self.now += timedelta(minutes=minutes)
        execution.end, execution.seconds, execution.changed = end, minutes * 60, self.now
        execution.status = "Succeeded" if end == "succeeded" else "Failed"
        run = f"{MODEL}/runs/{execution.arn.rsplit('/', 1)[-1]}"
        if end != "failed":
            self._put(f"{run}/evaluation/evaluation.json", self._evaluation(passed=end == "succeeded"))
        if end == "succeeded":
            execution.package = self.register()
            uri = f"s3://{BUCKET}/{run}/evaluation/evaluation.json"
            self.packages[execution.package]["CustomerMetadataProperties"] = {"noria:evaluation": uri}
        if heard:
            detail = {
                "pipelineArn": execution.arn.partition("/execution/")[0],
                "pipelineExecutionArn": execution.arn,
                "currentPipelineExecutionStatus": execution.status,
            }
            name = "SageMaker Model Building Pipeline Execution Status Change"
            self.say("record-training", "aws.sagemaker", name, detail)

    def _evaluation(self, *, passed: bool) -> str:
        reasons = [] if passed else ["auc 0.51 is below 0.55"]
        return Evaluation.model_validate(
            {
                "model": MODEL,
                "slice": SLICE,
                "trained_on": SLICE,
                "metrics": {"auc": {"value": 0.61, "low": 0.59, "high": 0.63}},
                "latency_p95_ms": 3.0,
                "gate": {"passed": passed, "reasons": reasons, "reason": "; ".join(reasons)},
            }
        ).model_dump_json()

    def accept(self, sha: str, *, rows: int) -> dict[str, Any]:
        """A dataset lies there; returns the details of the event that tells it."""
        key = f"{MODEL}/datasets/{sha}"
        manifest = {"sha256": sha, "key": f"{key}/data.csv", "rows": rows}
        manifest |= {"first_event": "2013-01-01T00:00:00", "last_event": "2013-01-31T00:00:00"}
        self._put(f"{key}/manifest.json", json.dumps(manifest))
        return {"model": MODEL, "dataset": sha, "key": f"{MODEL}/incoming/{sha[-3:]}.csv", "version": "v", "rows": rows}

    def raise_alarm(self, monitor: str) -> None:
        self.now += timedelta(seconds=1, milliseconds=250)
        name = NAMES.monitor_alarm(MODEL, monitor)
        self.raised.add(name)
        self.transitions.append(f"{name}#{self.now.isoformat()}")
        state = {"value": "ALARM", "reason": "Threshold Crossed", "timestamp": self.now.isoformat()}
        detail = {"alarmName": name, "state": state}
        self.say("request-retraining", "aws.cloudwatch", "CloudWatch Alarm State Change", detail)

    def come(self) -> None:
        """Time passes until the next schedule is due, which comes at its second."""
        self.pass_time(max(min(at for at, _, _ in self.schedules.values()) - self.now, timedelta(0)))

    def _put(self, key: str, body: str) -> None:
        self.objects[key] = body.encode(), self.now

    # --- clients

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, int]:  # noqa: N803
        for entry in Entries:
            if queue := HEARS.get(entry["DetailType"]):
                self.say(queue, entry["Source"], entry["DetailType"], json.loads(entry["Detail"]))
        return super().put_events(Entries=Entries)

    def send_message(self, *, QueueUrl: str, MessageBody: str, **_: Any) -> None:  # noqa: N803
        body = json.loads(MessageBody)
        self.say(QueueUrl.removeprefix(f"{NAMES.prefix}-"), body["source"], body["detail-type"], body["detail"])

    def describe_alarms(self, *, AlarmNames: list[str]) -> dict[str, Any]:  # noqa: N803
        return {"MetricAlarms": [{"StateValue": "ALARM" if name in self.raised else "OK"} for name in AlarmNames]}

    def start_pipeline_execution(self, *, PipelineName: str, ClientRequestToken: str, **_: Any) -> dict[str, str]:  # noqa: N803
        for execution in self.executions.values():
            if execution.token == ClientRequestToken:
                return {"PipelineExecutionArn": execution.arn}
        assert self.running == [], "two trainings at once"
        assert PipelineName == GROUP
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{GROUP}/execution/e{len(self.executions) + 1}"
        self.executions[arn] = Execution(arn=arn, token=ClientRequestToken, began=self.now)
        return {"PipelineExecutionArn": arn}

    def describe_pipeline_execution(self, *, PipelineExecutionArn: str) -> dict[str, Any]:  # noqa: N803
        execution = self.executions[PipelineExecutionArn]
        return {"LastModifiedTime": execution.changed or execution.began}

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
        execution = next(e for e in self.executions.values() if e.arn.endswith(f"/{TrainingJobName}"))
        return {"BillableTimeInSeconds": execution.seconds, "ResourceConfig": {"InstanceCount": 1}}

    def get_paginator(self, operation: str) -> Pages:
        match operation:
            case "list_pipeline_executions":
                return Pages(lambda **_: {"PipelineExecutionSummaries": self._executions()})
            case "list_pipeline_execution_steps":
                return Pages(lambda **asked: {"PipelineExecutionSteps": self._steps(asked["PipelineExecutionArn"])})
            case "list_objects_v2":
                return Pages(self.list_objects_v2)
            case _:
                return super().get_paginator(operation)

    def _executions(self) -> list[dict[str, Any]]:
        return [
            {"PipelineExecutionArn": execution.arn, "PipelineExecutionStatus": execution.status}
            for execution in self.executions.values()
        ]

    def _steps(self, arn: str) -> list[dict[str, Any]]:
        execution = self.executions[arn]
        job = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{arn.rsplit('/', 1)[-1]}"
        status = "Failed" if execution.end == "failed" else "Succeeded"
        steps = [{"StepName": "Train", "StepStatus": status, "Metadata": {"TrainingJob": {"Arn": job}}}]
        if execution.end == "refused":
            steps.append({"StepName": "Refuse", "StepStatus": "Failed"})
        if execution.package:
            package = {"RegisterModel": {"Arn": execution.package}}
            steps.append({"StepName": "Register", "StepStatus": "Succeeded", "Metadata": package})
        return steps

    def list_objects_v2(self, *, Prefix: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {
            "Contents": [
                {"Key": key, "Size": len(body), "LastModified": at}
                for key, (body, at) in self.objects.items()
                if key.startswith(Prefix)
            ]
        }

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Body": io.BytesIO(self.objects[Key][0])}

    def put_object(self, *, Key: str, Body: bytes, IfNoneMatch: str | None = None, **_: Any) -> None:  # noqa: N803
        if IfNoneMatch and Key in self.objects:
            raise error("PutObject", "PreconditionFailed", "it exists")
        self.objects[Key] = Body, self.now
