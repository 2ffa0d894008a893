"""The committed definition, run for real by the local SageMaker: January's flights become a package, and a champion."""

import io
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest

from local.cloud import ACCOUNT, REGION, LocalCloud
from local.demo import flights
from noria import spec as specs
from noria.evaluation import Evaluation
from noria.explain import Attribution
from noria.golden import Golden, attributes
from noria.profile import Profile
from noria.spec import Metric, ModelSpec
from noria.training import Cause, Champion, TrainingDataset, TrainingRequest
from pipelines.bundle import code_archive, digest, wheels_archive
from pipelines.tabular.export import DEFINITION

BUCKET = "pipeline-data"
SCIKIT_LEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
SPEC = specs.load(Path("models/flight-delay.yaml"))
PATIENCE = 120

T = TypeVar("T")


class Wheel:
    """A bucket, a key and a role, and one pipeline between them."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self._cloud, self._folder = cloud, folder
        self.s3, self.sagemaker = self._client("s3"), self._client("sagemaker")
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._key = self._client("kms").create_key()["KeyMetadata"]["Arn"]
        self._role = self._make_role()

    def pipeline(self, spec: ModelSpec) -> str:
        """Deploy the definition for `spec`, as the training stack would."""
        name = f"noria-test-{spec.model}"
        code = code_archive(self._folder / "sourcedir.tar.gz")
        wheels = wheels_archive(self._folder / "wheels.tar.gz", "local")
        for path in (code, wheels):
            self.s3.upload_file(str(path), BUCKET, f"assets/{path.name}")
        self.s3.put_object(Bucket=BUCKET, Key=f"assets/{name}/spec.json", Body=spec.model_dump_json().encode())
        values = {
            "NORIA_ROLE_ARN": self._role,
            "NORIA_BUCKET": BUCKET,
            "NORIA_MODEL": spec.model,
            "NORIA_GROUP": name,
            "NORIA_IMAGE": spec.image or SCIKIT_LEARN,
            "NORIA_SERVE_IMAGE": spec.image or f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/noria-serving:local",
            "NORIA_KEY_ARN": self._key,
            "NORIA_CODE_URI": f"s3://{BUCKET}/assets/{code.name}",
            "NORIA_CODE_HASH": digest(code),
            "NORIA_WHEELS_URI": f"s3://{BUCKET}/assets/{wheels.name}",
            "NORIA_SPEC_URI": f"s3://{BUCKET}/assets/{name}/spec.json",
            "NORIA_TRAIN_INSTANCE": spec.train.instance,
            '"NORIA_TIMEOUT_SECONDS"': "600",
        }
        definition = DEFINITION.read_text(encoding="utf-8")
        for placeholder in sorted(values, key=len, reverse=True):
            definition = definition.replace(placeholder, values[placeholder])
        self.sagemaker.create_model_package_group(ModelPackageGroupName=name)
        self.sagemaker.create_pipeline(
            PipelineName=name, PipelineDefinition=definition, RoleArn=self._role, ClientRequestToken="0" * 32
        )
        return name

    def train(self, pipeline: str, spec: ModelSpec, data: bytes, champion: Champion | None = None) -> dict[str, Any]:
        """One execution on one dataset, to its end: its description, its steps by name."""
        now = datetime.now(UTC)
        key = f"{spec.model}/datasets/{'1' * 64}/data.csv"
        rows = data.count(b"\n") - 1
        dataset = TrainingDataset(sha256="1" * 64, key=key, rows=rows, first_event=now, last_event=now)
        request = TrainingRequest.of(
            model=spec.model,
            cause=Cause(kind="upload", identity=now.isoformat(), text="a test"),
            datasets=[dataset],
            champion=champion,
            now=now,
        )
        for name, body in {
            key: data,
            request.key("request.json"): request.model_dump_json().encode(),
            request.key("datasets.manifest"): request.datasets_manifest(BUCKET).encode(),
            request.key("champion.manifest"): request.champion_manifest(BUCKET).encode(),
        }.items():
            self.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
        arn = self.sagemaker.start_pipeline_execution(
            PipelineName=pipeline,
            ClientRequestToken=request.token,
            PipelineParameters=[{"Name": name, "Value": value} for name, value in request.parameters().items()],
        )["PipelineExecutionArn"]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            execution: dict[str, Any] = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            if execution["PipelineExecutionStatus"] != "Executing":
                break
            time.sleep(0.2)
        steps = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {**execution, "Steps": {step["StepName"]: step for step in steps}}

    def train_again(self, job: dict[str, Any], name: str, spec: ModelSpec, *, spot: bool = False) -> None:
        """Train on what `job` did, for another spec; on Spot with a checkpoint after each iteration."""
        key = f"assets/{name}/spec.json"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=spec.model_dump_json().encode())
        parts = ("AlgorithmSpecification", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "RoleArn")
        request = {part: job[part] for part in parts} | {"EnableNetworkIsolation": True, "TrainingJobName": name}
        (source,) = (each["DataSource"] for each in request["InputDataConfig"] if each["ChannelName"] == "spec")
        source["S3DataSource"]["S3Uri"] = f"s3://{BUCKET}/{key}"
        if spot:
            checkpoints = {"checkpoints": "/opt/ml/checkpoints", "checkpoint-seconds": "0"}
            request |= {
                "HyperParameters": job["HyperParameters"] | checkpoints,
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200},
                "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/{name}", "LocalPath": "/opt/ml/checkpoints"},
            }
        else:
            request |= {part: job[part] for part in ("HyperParameters", "StoppingCondition")}
        self.sagemaker.create_training_job(**request)

    def ended(self, job: str) -> dict[str, Any]:
        done = self.until(lambda: found if (found := self.trained(job))["TrainingJobStatus"] != "InProgress" else None)
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
        return done

    def trained(self, job: str) -> dict[str, Any]:
        description: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=job)
        return description

    def interrupt(self, job: str) -> None:
        self._cloud.faults.interrupt(job)

    def log(self, job: str) -> str:
        return (self._cloud.root / "jobs" / job / "log.txt").read_text()

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [each["Key"] for each in found]

    def until(self, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + PATIENCE
        while not (seen := look()):
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)
        return seen

    def bundle(self, uri: str) -> dict[str, bytes]:
        """The files of a model bundle."""
        with tarfile.open(fileobj=io.BytesIO(self.read(uri))) as tar:
            files = {member.name: tar.extractfile(member) for member in tar.getmembers() if member.isfile()}
            return {name: file.read() for name, file in files.items() if file}

    def read(self, uri: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
        return body

    def package(self, execution: dict[str, Any]) -> dict[str, Any]:
        arn = execution["Steps"]["Register"]["Metadata"]["RegisterModel"]["Arn"]
        description: dict[str, Any] = self.sagemaker.describe_model_package(ModelPackageName=arn)
        return description

    def serve(self, execution: dict[str, Any], instance: str) -> str:
        """Approve the package and serve it as the serving stack would; the endpoint's name."""
        package: str = self.package(execution)["ModelPackageArn"]
        name = package.split("/")[1]
        self.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
        container = {"ModelPackageName": package}
        self.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=self._role, PrimaryContainer=container, EnableNetworkIsolation=True
        )
        variant = {"VariantName": "champion", "ModelName": name, "InstanceType": instance, "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self.sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE}
        )
        return name

    def asks_golden_rows(self, execution: dict[str, Any], endpoint: str) -> list[str]:
        """What a served package answers wrongly of its golden rows; it must say which bundle it is."""
        metadata = self.package(execution)["CustomerMetadataProperties"]
        golden = Golden.model_validate_json(self.read(metadata["noria:golden"]))
        assert len(golden.rows) == 20
        answer = self._client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=json.dumps({"instances": golden.rows})
        )
        assert answer["CustomAttributes"] == attributes(golden.bundle)
        return list(golden.mistakes(json.loads(answer["Body"].read())["predictions"]))

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self._cloud.endpoint,
            verify=str(self._cloud.certificate),
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def _make_role(self) -> str:
        iam = self._client("iam")
        trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(
            RoleName="pipeline", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
        allowed = {
            "Effect": "Allow",
            "Action": ["s3:*", "sagemaker:*", "kms:*", "logs:*", "iam:PassRole"],
            "Resource": "*",
        }
        iam.put_role_policy(
            RoleName="pipeline",
            PolicyName="all",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
        )
        arn: str = role["Role"]["Arn"]
        assert ACCOUNT in arn
        return arn


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("wheel")
    with LocalCloud(root=folder / "cloud", port=port, time_scale=60) as cloud:
        yield Wheel(cloud, folder)


@pytest.fixture(scope="module")
def pipeline(wheel: Wheel) -> str:
    return wheel.pipeline(SPEC)


@pytest.fixture(scope="module")
def first(wheel: Wheel, pipeline: str) -> dict[str, Any]:
    return wheel.train(pipeline, SPEC, flights.month(201301))


def test_january_becomes_a_package_that_awaits_approval(wheel: Wheel, first: dict[str, Any]) -> None:
    assert first["PipelineExecutionStatus"] == "Succeeded", first
    package = wheel.package(first)
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    metadata = package["CustomerMetadataProperties"]
    assert metadata["noria:execution"] == first["PipelineExecutionArn"]
    assert metadata["noria:champion"] == "none"
    evaluation = Evaluation.model_validate_json(wheel.read(metadata["noria:evaluation"]))
    assert evaluation.gate.passed
    assert 0.6 < evaluation.metrics[Metric.AUC].value < 0.75, "FACTS of the data: about 0.65 when split by time"
    assert {"EWR", "JFK", "LGA"} <= set(evaluation.segments["origin"])
    baseline = Profile.model_validate_json(wheel.read(metadata["noria:baseline"]))
    assert baseline.rows == evaluation.trained_on.rows
    attribution = Attribution.model_validate_json(wheel.read(metadata["noria:attribution"]))
    assert set(attribution.weights) == set(SPEC.features)
    assert attribution.seconds < 10, "it is not to make trainings slow"


def test_a_training_interrupted_on_spot_goes_on_and_gives_the_model_of_one_that_was_not(
    wheel: Wheel, first: dict[str, Any]
) -> None:
    january = wheel.trained(first["Steps"]["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2])
    long = SPEC.train.model_copy(update={"hyperparameters": {"max_iter": 150, "early_stopping": False}})
    wheel.train_again(january, "undisturbed", SPEC.model_copy(update={"train": long}))
    wheel.train_again(january, "on-spot", SPEC.model_copy(update={"train": long}), spot=True)
    wheel.until(lambda: wheel.keys("checkpoints/on-spot/") and "checkpoint after 40 of" in wheel.log("on-spot"))
    wheel.interrupt("on-spot")
    undisturbed, done = wheel.ended("undisturbed"), wheel.ended("on-spot")
    assert [each["Status"] for each in done["SecondaryStatusTransitions"]].count("Interrupted") == 1
    bundle, other = (wheel.bundle(job["ModelArtifacts"]["S3ModelArtifacts"]) for job in (undisturbed, done))
    assert other["model.onnx"] == bundle["model.onnx"]
    assert json.loads(other["golden.json"]) == json.loads(bundle["golden.json"])
    assert [json.loads(files["training.json"])["iterations"] for files in (bundle, other)] == [150, 150]
    before, after = wheel.log("on-spot").split("goes on after ")
    taken_up = int(after.partition(" ")[0])
    assert 1 <= taken_up < 150, "some of the work was not done again"
    then, later = (re.findall(r"^checkpoint after (\d+) of", log, re.MULTILINE) for log in (before, after))
    assert taken_up <= len(then) + 2, "not before it was fitted; a line may have been lost"
    assert list(map(int, later)) == list(range(taken_up + 1, 150))


def test_the_bundle_is_what_a_serving_container_loads(wheel: Wheel, first: dict[str, Any]) -> None:
    (container,) = wheel.package(first)["InferenceSpecification"]["Containers"]
    assert container["Environment"]["SAGEMAKER_PROGRAM"] == "inference.py"
    with tarfile.open(fileobj=io.BytesIO(wheel.read(container["ModelDataUrl"]))) as tar:
        assert {"model.joblib", "signature.json", "code/inference.py"} <= set(tar.getnames())


def test_a_package_is_served_from_its_onnx_form_and_answers_its_golden_rows(
    wheel: Wheel, first: dict[str, Any]
) -> None:
    (container,) = wheel.package(first)["InferenceSpecification"]["Containers"]
    assert container["Image"].endswith("/noria-serving:local")
    evaluation = Evaluation.model_validate_json(
        wheel.read(wheel.package(first)["CustomerMetadataProperties"]["noria:evaluation"])
    )
    assert evaluation.serves == "onnx"
    assert evaluation.onnx_difference is not None
    assert evaluation.onnx_difference < 1e-12
    assert evaluation.onnx_rows == evaluation.slice.rows + evaluation.trained_on.rows
    assert wheel.asks_golden_rows(first, wheel.serve(first, SPEC.serve.instance)) == []


def test_a_second_framework_trains_and_serves_in_its_own_image(wheel: Wheel) -> None:
    spec = specs.load(Path("models/examples/flight-delay-lightgbm.yaml"))
    execution = wheel.train(wheel.pipeline(spec), spec, flights.month(201301))
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution
    (container,) = wheel.package(execution)["InferenceSpecification"]["Containers"]
    assert container["Image"] == spec.image
    metadata = wheel.package(execution)["CustomerMetadataProperties"]
    evaluation = Evaluation.model_validate_json(wheel.read(metadata["noria:evaluation"]))
    assert evaluation.serves == "sklearn"
    assert 0.6 < evaluation.metrics[Metric.AUC].value < 0.75
    assert wheel.asks_golden_rows(execution, wheel.serve(execution, spec.serve.instance)) == []


def test_a_candidate_meets_the_champion_on_the_same_rows(wheel: Wheel, pipeline: str, first: dict[str, Any]) -> None:
    """Trained on more months, it beats the model of January where both are new."""
    package = wheel.package(first)
    uri = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    champion = Champion(package=package["ModelPackageArn"], model_key=uri.removeprefix(f"s3://{BUCKET}/"))
    months = [flights.month(month).decode().partition("\n") for month in (201301, 201302, 201303)]
    data = "".join([months[0][0], "\n", *(rows for _, _, rows in months)]).encode()
    execution = wheel.train(pipeline, SPEC, data, champion)
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution
    metadata = wheel.package(execution)["CustomerMetadataProperties"]
    assert metadata["noria:champion"] == package["ModelPackageArn"]
    evaluation = Evaluation.model_validate_json(wheel.read(metadata["noria:evaluation"]))
    assert evaluation.champion is not None
    assert evaluation.champion.margins[Metric.AUC].value > 0


def test_a_refused_candidate_fails_the_execution_with_its_reason(wheel: Wheel) -> None:
    proud = SPEC.model_validate({**SPEC.model_dump(mode="json"), "model": "proud", "gates": {"auc": {"min": 0.99}}})
    execution = wheel.train(wheel.pipeline(proud), proud, flights.month(201301))
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "Register" not in execution["Steps"]
    assert "below its minimum 0.99" in execution["Steps"]["Refuse"]["FailureReason"]


def test_data_that_cannot_train_fails_the_step_with_its_reason(wheel: Wheel, pipeline: str) -> None:
    header, rows = flights.month(201301).decode().split("\n", 1)
    one_class = "\n".join([header, *(row for row in rows.splitlines() if row.endswith(",0"))])
    execution = wheel.train(pipeline, SPEC, one_class.encode())
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "one value of late only" in execution["Steps"]["Train"]["FailureReason"]
