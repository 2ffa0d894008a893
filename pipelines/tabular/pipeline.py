"""The training pipeline, authored with the SageMaker SDK (`make pipeline` writes it to definition.json).

    Prepare ──▶ Train ──▶ Evaluate ──▶ Gate ──▶ Register     a package that awaits approval
       │ test/  ───▲─────────▲           └────▶ Refuse       the execution fails, and says why
       └ train/ ───▲

Words that begin with NORIA_ are placeholders, filled in per model when the stacks are synthesised.
"""

from pipelines.tabular.offline import OfflineSession  # isort: skip - before the SDK, which reads what it sets

from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, Networking, OutputDataConfig, StoppingCondition

IMAGE, SERVE_IMAGE, KEY = "NORIA_IMAGE", "NORIA_SERVE_IMAGE", "NORIA_KEY_ARN"
MODEL = "s3://NORIA_BUCKET/NORIA_MODEL"

# The SDK takes well-formed values only, where these stand in for placeholders until `export` puts them in.
CODE, WHEELS, SPEC = "s3://noria/code", "s3://noria/wheels", "s3://noria/spec"
ROLE = "arn:aws:iam::000000000000:role/noria"
TIMEOUT = 3600
STAND_INS = {
    CODE: "NORIA_CODE_URI",
    WHEELS: "NORIA_WHEELS_URI",
    SPEC: "NORIA_SPEC_URI",
    ROLE: "NORIA_ROLE_ARN",
    TIMEOUT: "NORIA_TIMEOUT_SECONDS",
}

PROCESSING = "/opt/ml/processing"
ARCHIVE = "sourcedir.tar.gz"
VOLUME_GB = 30

# Paths are arguments and not part of the script, so that a container may have them elsewhere.
UNPACK_AND_RUN = 'set -e; mkdir -p "$2"; tar -xzf "$1" -C "$2"; exec python3 "$2/run.py" "${@:3}"'

JSON, MEDIA_TYPES = "application/json", ["application/json", "application/jsonlines", "text/csv"]

# No step is cached: a training is started once per cause, by its token, and a repeated one is wanted for its own sake.
RETRIES = [
    StepRetryPolicy(
        exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
        interval_seconds=10,
        backoff_rate=2.0,
        max_attempts=5,
    ),
    SageMakerJobStepRetryPolicy(
        exception_types=[
            SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
            SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT,
            SageMakerJobExceptionTypeEnum.INTERNAL_ERROR,
        ],
        interval_seconds=60,
        backoff_rate=2.0,
        max_attempts=4,
    ),
]


def pipeline() -> Pipeline:
    session = OfflineSession(bucket="NORIA_BUCKET")
    token = ParameterString("TrainingToken")
    dataset = ParameterString("DatasetHash")
    champion = ParameterString("ChampionPackage", default_value="none")
    cause = ParameterString("Cause", default_value="by hand")

    def manifest(name: str) -> Join:
        return Join(on="/", values=[f"{MODEL}/trainings", token, name])

    prepare = ProcessingStep(
        "Prepare",
        step_args=_processor(session).run(
            inputs=[
                *_code(),
                _input("spec", SPEC),
                _input("datasets", manifest("datasets.manifest"), "ManifestFile"),
            ],
            outputs=[_output("train", _run("train")), _output("test", _run("test"))],
            arguments=_arguments("prepare", "datasets", "spec", "train", "test"),
        ),
        retry_policies=RETRIES,
    )
    train = TrainingStep("Train", step_args=_trainer(session, prepare).train(), retry_policies=RETRIES)
    report = PropertyFile(name="Evaluation", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        "Evaluate",
        step_args=_processor(session).run(
            inputs=[
                *_code(),
                _input("spec", SPEC),
                _input("model", train.properties.ModelArtifacts.S3ModelArtifacts),
                _input("test", _uri(prepare, "test")),
                _input("champion", manifest("champion.manifest"), "ManifestFile"),
            ],
            outputs=[
                _output("evaluation", _run("evaluation")),
                _output("baseline", Join(on="/", values=[f"{MODEL}/baselines", _EXECUTION])),
            ],
            arguments=[
                *_arguments("evaluate", "model", "test", "champion", "spec", "evaluation", "baseline"),
                "--champion-package",
                champion,
                "--onnx-image",
                SERVE_IMAGE,
                "--sklearn-image",
                IMAGE,
            ],
        ),
        property_files=[report],
        retry_policies=RETRIES,
    )
    register = ModelStep(
        "Register",
        step_args=_registration(
            session,
            train,
            evaluate,
            _finding(evaluate, report, "image"),
            dataset=dataset,
            token=token,
            champion=champion,
        ),
        retry_policies=RETRIES[:1],
    )
    refuse = FailStep("Refuse", error_message=_finding(evaluate, report, "gate.reason"))
    gate = ConditionStep(
        "Gate",
        conditions=[ConditionEquals(left=_finding(evaluate, report, "gate.passed"), right=True)],
        if_steps=[register],
        else_steps=[refuse],
    )
    return Pipeline(
        name="NORIA_GROUP",
        parameters=[token, dataset, champion, cause],
        steps=[prepare, train, evaluate, gate],
        pipeline_experiment_config=None,
        sagemaker_session=session,
    )


def _processor(session: OfflineSession) -> Processor:
    return Processor(
        role=ROLE,
        image_uri=IMAGE,
        entrypoint=["/bin/bash", "-c", UNPACK_AND_RUN, "run"],
        instance_type="NORIA_TRAIN_INSTANCE",
        instance_count=1,
        volume_size_in_gb=VOLUME_GB,
        volume_kms_key=KEY,
        output_kms_key=KEY,
        max_runtime_in_seconds=TIMEOUT,
        network_config=NetworkConfig(enable_network_isolation=True),
        sagemaker_session=session,
    )


def _trainer(session: OfflineSession, prepare: ProcessingStep) -> ModelTrainer:
    """Script mode of the sagemaker-training toolkit, whose code is a channel: the job has no network to fetch it."""
    data = {name: _uri(prepare, name) for name in ("train", "test")}
    channels = {**data, "spec": SPEC, "code": CODE, "wheels": WHEELS}
    return ModelTrainer(
        training_image=IMAGE,
        role=ROLE,
        compute=Compute(
            instance_type="NORIA_TRAIN_INSTANCE",
            instance_count=1,
            volume_size_in_gb=VOLUME_GB,
            volume_kms_key_id=KEY,
        ),
        networking=Networking(enable_network_isolation=True),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=TIMEOUT),
        output_data_config=OutputDataConfig(s3_output_path=_run("model"), kms_key_id=KEY),
        input_data_config=[InputData(channel_name=name, data_source=uri) for name, uri in channels.items()],
        hyperparameters={
            "step": "train",
            "sagemaker_program": "run.py",
            "sagemaker_submit_directory": f"/opt/ml/input/data/code/{ARCHIVE}",
        },
        sagemaker_session=session,
    )


def _registration(
    session: OfflineSession,
    train: TrainingStep,
    evaluate: ProcessingStep,
    image: JsonGet,
    *,
    dataset: ParameterString,
    token: ParameterString,
    champion: ParameterString,
) -> object:
    """A package pending approval, with where it comes from as metadata.

    `image` is what the evaluation found to serve the form of the model that is in the bundle.
    """
    evaluation = Join(on="/", values=[_uri(evaluate, "evaluation"), "evaluation.json"])
    builder = ModelBuilder(
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        image_uri=image,
        role_arn=ROLE,
        env_vars={
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": JSON,
            # The image runs `pip install .` on the code when it starts. Without network that works with the setuptools
            # it has, which pip uses when it does not isolate the build (0 means so: pip's own inversion).
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            # One worker per processor: threads within one row's prediction would only wait for each other.
            "OMP_NUM_THREADS": "1",
        },
        sagemaker_session=session,
    )
    return builder.register(
        model_package_group_name="NORIA_GROUP",
        content_types=MEDIA_TYPES,
        response_types=MEDIA_TYPES,
        approval_status="PendingManualApproval",
        model_metrics=ModelMetrics(model_statistics=MetricsSource(s3_uri=evaluation, content_type=JSON)),
        customer_metadata_properties={
            "noria:training": token,
            "noria:dataset": dataset,
            "noria:code": "NORIA_CODE_HASH",
            "noria:execution": ExecutionVariables.PIPELINE_EXECUTION_ARN,
            "noria:champion": champion,
            "noria:baseline": Join(on="/", values=[_uri(evaluate, "baseline"), "baseline.json"]),
            "noria:golden": Join(on="/", values=[_uri(evaluate, "baseline"), "golden.json"]),
            "noria:attribution": Join(on="/", values=[_uri(evaluate, "baseline"), "attribution.json"]),
            "noria:evaluation": evaluation,
        },
    )


_EXECUTION = ExecutionVariables.PIPELINE_EXECUTION_ID


def _run(output: str) -> Join:
    """Where an execution's outputs are."""
    return Join(on="/", values=[f"{MODEL}/runs", _EXECUTION, output])


def _code() -> list[ProcessingInput]:
    return [_input("code", CODE), _input("wheels", WHEELS)]


def _input(name: str, uri: object, data_type: str = "S3Prefix") -> ProcessingInput:
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(s3_uri=uri, local_path=_path(name), s3_data_type=data_type, s3_input_mode="File"),
    )


def _output(name: str, uri: object) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(s3_uri=uri, local_path=_path(name), s3_upload_mode="EndOfJob"),
    )


def _path(name: str) -> str:
    return f"{PROCESSING}/{name}"


def _arguments(step: str, *folders: str) -> list[str]:
    """The script's two paths, what `run.py` needs, and each folder under its own name."""
    start = [f"{_path('code')}/{ARCHIVE}", _path("unpacked"), "--step", step, "--wheels", _path("wheels")]
    named = [part for folder in folders for part in (f"--{folder}", _path(folder))]
    return [*start, "--failure", "/opt/ml/output/message", *named]


def _uri(step: ProcessingStep, output: str) -> object:
    return step.properties.ProcessingOutputConfig.Outputs[output].S3Output.S3Uri


def _finding(step: ProcessingStep, report: PropertyFile, path: str) -> JsonGet:
    return JsonGet(step_name=step.name, property_file=report, json_path=path)
