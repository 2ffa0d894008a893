"""The order in which a pipeline's steps run, and what becomes of failures, retries, callbacks and caches."""

import io
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.sagemaker.api import Problem
from local.sagemaker.pipelines import Pipelines
from local.sagemaker.tags import Tags

ROLE = "arn:aws:iam::123456789012:role/pipeline"


@dataclass
class Functions:
    """Lambda in memory: each function is named by its step, remembers its calls, and answers what it is told to."""

    answers: dict[str, Any] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)  # how often a function still fails with a server error
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gates: dict[str, threading.Barrier | threading.Event] = field(default_factory=dict)

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
        self.calls.append((FunctionName, json.loads(Payload)))
        if (gate := self.gates.get(FunctionName)) is not None:
            gate.wait(5)
        if self.failures[FunctionName]:
            self.failures[FunctionName] -= 1
            error = {"Error": {"Code": "ServiceException", "Message": "try again"}}
            raise ClientError(error | {"ResponseMetadata": {"HTTPStatusCode": 500}}, "Invoke")  # type: ignore[arg-type]
        return {"Payload": io.BytesIO(json.dumps(self.answers.get(FunctionName, {})).encode()), "StatusCode": 200}

    @property
    def called(self) -> list[str]:
        return [name for name, _ in self.calls]


@dataclass
class Queue:
    messages: list[dict[str, Any]] = field(default_factory=list)

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert QueueUrl == "https://queue"
        self.messages.append(json.loads(MessageBody))
        return {}


@pytest.fixture
def functions(cloud: Any) -> Functions:
    cloud.clients["lambda"] = Functions()
    functions: Functions = cloud.clients["lambda"]
    return functions


@pytest.fixture
def queue(cloud: Any) -> Queue:
    cloud.clients["sqs"] = Queue()
    queue: Queue = cloud.clients["sqs"]
    return queue


@pytest.fixture
def pipelines(cloud: Any, functions: Functions) -> Pipelines:
    cloud.clients["s3"] = None
    return Pipelines(cloud, Tags(), jobs={})


def call(name: str, arguments: dict[str, Any] | None = None, outputs: tuple[str, ...] = (), **members: Any) -> Any:
    return {
        "Name": name,
        "Type": "Lambda",
        "FunctionArn": name,
        "Arguments": arguments or {},
        "OutputParameters": [{"OutputName": output, "OutputType": "String"} for output in outputs],
        **members,
    }


def gate(name: str, left: Any, right: Any, if_steps: list[Any], else_steps: list[Any], **members: Any) -> Any:
    conditions = [{"Type": "Equals", "LeftValue": left, "RightValue": right}]
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments, **members}


def create(pipelines: Pipelines, *steps: Any, parameters: list[Any] | None = None, **members: Any) -> None:
    definition = json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": steps})
    pipelines.create_pipeline({"PipelineName": "p", "RoleArn": ROLE, "PipelineDefinition": definition, **members})


def start(pipelines: Pipelines, token: str = "a" * 32, **parameters: str) -> str:
    given = [{"Name": name, "Value": value} for name, value in parameters.items()]
    request = {"PipelineName": "p", "ClientRequestToken": token, "PipelineParameters": given}
    arn: str = pipelines.start_pipeline_execution(request)["PipelineExecutionArn"]
    return arn


def finish(pipelines: Pipelines, arn: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        execution = pipelines.describe_pipeline_execution({"PipelineExecutionArn": arn})
        if execution["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            return execution
        time.sleep(0.005)
    raise AssertionError("the execution did not end")


def steps(pipelines: Pipelines, arn: str) -> dict[str, dict[str, Any]]:
    listed = pipelines.list_pipeline_execution_steps({"PipelineExecutionArn": arn})["PipelineExecutionSteps"]
    return {step["StepName"]: step for step in listed}


def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_step_gets_what_the_step_before_it_gave(pipelines: Pipelines, functions: Functions) -> None:
    functions.answers["First"] = {"hash": "abc"}
    second = call("Second", {"hash": {"Get": "Steps.First.OutputParameters['hash']"}, "id": {"Get": "Parameters.Id"}})
    create(pipelines, second, call("First", outputs=("hash",)), parameters=[{"Name": "Id", "Type": "Integer"}])
    arn = start(pipelines, Id="7")
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert functions.calls == [("First", {}), ("Second", {"hash": "abc", "id": 7})]
    assert steps(pipelines, arn)["First"]["Metadata"]["Lambda"]["OutputParameters"] == [
        {"Name": "hash", "Value": "abc"}
    ]


def test_independent_steps_run_side_by_side(pipelines: Pipelines, functions: Functions) -> None:
    both_there = threading.Barrier(2)
    functions.gates = {"Left": both_there, "Right": both_there}
    create(pipelines, call("Left"), call("Right"))
    assert finish(pipelines, start(pipelines))["PipelineExecutionStatus"] == "Succeeded"
    assert not both_there.broken


def test_parallelism_is_limited(pipelines: Pipelines, functions: Functions) -> None:
    going = threading.Event()
    functions.gates = {"Left": going, "Right": going}
    create(pipelines, call("Left"), call("Right"), ParallelismConfiguration={"MaxParallelExecutionSteps": 1})
    arn = start(pipelines)
    until(lambda: functions.called)
    time.sleep(0.05)
    assert len(functions.called) == 1
    going.set()
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert len(functions.called) == 2


@pytest.mark.parametrize(("value", "taken", "left"), [("yes", "Then", "Otherwise"), ("no", "Otherwise", "Then")])
def test_only_the_branch_that_is_taken_runs(
    pipelines: Pipelines, functions: Functions, value: str, taken: str, left: str
) -> None:
    after = call("After", DependsOn=[left])
    choice = gate("Choice", {"Get": "Parameters.Go"}, "yes", [call("Then")], [call("Otherwise")])
    create(pipelines, choice, after, parameters=[{"Name": "Go", "Type": "String"}])
    arn = start(pipelines, Go=value)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert functions.called == [taken]
    assert set(steps(pipelines, arn)) == {"Choice", taken}
    assert steps(pipelines, arn)["Choice"]["Metadata"] == {"Condition": {"Outcome": str(value == "yes")}}


def test_after_a_failure_nothing_new_starts_and_what_runs_ends(pipelines: Pipelines, functions: Functions) -> None:
    going = threading.Event()
    functions.gates["Slow"] = going
    wrong = {
        "Name": "Wrong",
        "Type": "Fail",
        "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["no", 1]}}},
    }
    create(pipelines, call("Slow"), wrong, call("Next", DependsOn=["Slow"]))
    arn = start(pipelines)
    until(lambda: steps(pipelines, arn).get("Wrong", {}).get("StepStatus") == "Failed")
    going.set()
    execution = finish(pipelines, arn)
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert execution["FailureReason"] == "Step failure: One or multiple steps failed."
    assert {name: step["StepStatus"] for name, step in steps(pipelines, arn).items()} == {
        "Slow": "Succeeded",
        "Wrong": "Failed",
    }
    assert steps(pipelines, arn)["Wrong"]["FailureReason"] == "no 1"


def test_a_reference_without_a_value_fails_its_step(pipelines: Pipelines, functions: Functions) -> None:
    create(pipelines, call("First"), call("Second", {"x": {"Get": "Steps.First.OutputParameters['hash']"}}))
    arn = start(pipelines)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Failed"
    assert "Steps.First.OutputParameters['hash']" in steps(pipelines, arn)["Second"]["FailureReason"]


RETRY = {"ExceptionType": ["Step.SERVICE_FAULT"], "IntervalSeconds": 1, "BackoffRate": 2.0}


@pytest.mark.parametrize(("failures", "status", "attempts"), [(2, "Succeeded", 3), (3, "Failed", 3)])
def test_a_fault_is_retried_as_the_policy_says(
    pipelines: Pipelines, functions: Functions, failures: int, status: str, attempts: int
) -> None:
    functions.failures["Flaky"] = failures
    create(pipelines, call("Flaky", RetryPolicies=[RETRY | {"MaxAttempts": 3}]))
    arn = start(pipelines)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == status
    assert steps(pipelines, arn)["Flaky"]["AttemptCount"] == attempts


def test_a_fault_of_another_kind_is_not_retried(pipelines: Pipelines, functions: Functions) -> None:
    functions.failures["Flaky"] = 1
    create(pipelines, call("Flaky", RetryPolicies=[RETRY | {"ExceptionType": ["Step.THROTTLING"]}]))
    arn = start(pipelines)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Failed"
    assert functions.called == ["Flaky"]
    assert "Failed to invoke lambda:Invoke" in steps(pipelines, arn)["Flaky"]["FailureReason"]


def test_a_retried_execution_runs_only_what_had_not_succeeded(pipelines: Pipelines, functions: Functions) -> None:
    functions.failures["Second"] = 1
    create(pipelines, call("First"), call("Second", DependsOn=["First"]), call("Third", DependsOn=["Second"]))
    arn = start(pipelines)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Failed"
    pipelines.retry_pipeline_execution({"PipelineExecutionArn": arn})
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert functions.called == ["First", "Second", "Second", "Third"]


def test_the_same_token_is_the_same_execution(pipelines: Pipelines, functions: Functions) -> None:
    create(pipelines, call("Once"))
    first = start(pipelines, token="a" * 32)
    assert start(pipelines, token="a" * 32) == first
    assert start(pipelines, token="b" * 32) != first
    finish(pipelines, first)


def test_a_cached_step_runs_once_for_the_same_arguments(pipelines: Pipelines, functions: Functions) -> None:
    functions.answers["Costly"] = {"hash": "abc"}
    costly = call("Costly", {"n": {"Get": "Parameters.N"}}, outputs=("hash",))
    costly["CacheConfig"] = {"Enabled": True, "ExpireAfter": "P30D"}
    use = call("Use", {"hash": {"Get": "Steps.Costly.OutputParameters['hash']"}})
    create(pipelines, costly, use, parameters=[{"Name": "N", "Type": "Integer", "DefaultValue": 1}])
    first, second = start(pipelines, token="a" * 32), None
    finish(pipelines, first)
    second = start(pipelines, token="b" * 32)
    finish(pipelines, second)
    third = start(pipelines, token="c" * 32, N="2")
    finish(pipelines, third)
    assert functions.called == ["Costly", "Use", "Use", "Costly", "Use"]
    assert steps(pipelines, second)["Costly"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert functions.calls[2] == ("Use", {"hash": "abc"})


def callback(name: str) -> Any:
    return {
        "Name": name,
        "Type": "Callback",
        "SqsQueueUrl": "https://queue",
        "Arguments": {"question": "ready?"},
        "OutputParameters": [{"OutputName": "answer", "OutputType": "String"}],
    }


def test_a_callback_waits_for_its_answer(pipelines: Pipelines, functions: Functions, queue: Queue) -> None:
    create(pipelines, callback("Ask"), call("Use", {"it": {"Get": "Steps.Ask.OutputParameters['answer']"}}))
    arn = start(pipelines)
    until(lambda: queue.messages)
    message = queue.messages[0]
    assert message["arguments"] == {"question": "ready?"}
    assert message["pipelineExecutionArn"] == arn
    outputs = [{"Name": "answer", "Value": "yes"}]
    pipelines.send_pipeline_execution_step_success({"CallbackToken": message["token"], "OutputParameters": outputs})
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert functions.calls == [("Use", {"it": "yes"})]
    with pytest.raises(Problem, match="No callback step waits"):
        pipelines.send_pipeline_execution_step_success({"CallbackToken": message["token"]})


def test_a_callback_may_be_answered_with_a_failure(pipelines: Pipelines, queue: Queue) -> None:
    create(pipelines, callback("Ask"))
    arn = start(pipelines)
    until(lambda: queue.messages)
    failure = {"CallbackToken": queue.messages[0]["token"], "FailureReason": "nobody home"}
    pipelines.send_pipeline_execution_step_failure(failure)
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Failed"
    assert steps(pipelines, arn)["Ask"]["FailureReason"] == "nobody home"


def test_a_stopped_execution_stops_its_steps(pipelines: Pipelines, functions: Functions, queue: Queue) -> None:
    create(pipelines, callback("Ask"), call("Next", DependsOn=["Ask"]))
    arn = start(pipelines)
    until(lambda: queue.messages)
    pipelines.stop_pipeline_execution({"PipelineExecutionArn": arn})
    assert finish(pipelines, arn)["PipelineExecutionStatus"] == "Stopped"
    assert steps(pipelines, arn)["Ask"]["StepStatus"] == "Stopped"
    assert functions.called == []
    with pytest.raises(Problem, match="cannot be stopped"):
        pipelines.stop_pipeline_execution({"PipelineExecutionArn": arn})


def test_every_change_is_an_event(pipelines: Pipelines, functions: Functions, cloud: Any) -> None:
    create(pipelines, call("Only"))
    arn = start(pipelines)
    finish(pipelines, arn)
    execution = "SageMaker Model Building Pipeline Execution Status Change"
    step = "SageMaker Model Building Pipeline Execution Step Status Change"
    told = [
        (kind, detail.get("currentPipelineExecutionStatus") or detail.get("currentStepStatus"))
        for kind, detail in cloud.events
    ]
    assert told == [
        (execution, "Executing"),
        (step, "Starting"),
        (step, "Executing"),
        (step, "Succeeded"),
        (execution, "Succeeded"),
    ]
    last = cloud.events[-1][1]
    assert last["previousPipelineExecutionStatus"] == "Executing"
    assert last["pipelineExecutionArn"] == arn
    assert last["executionStartTime"].endswith("Z")
    assert cloud.events[3][1]["metadata"] == {"lambda": {"arn": "Only", "outputParameters": []}}
