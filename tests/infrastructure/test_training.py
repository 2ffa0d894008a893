"""The training stack: its pipeline definition filled in, its group, its schedule, and what its jobs may do."""

import fnmatch
import json
from typing import Any

import pytest

from noria.spec import ModelSpec, load_all
from pipelines.bundle import digest
from stacks import bundles
from tests.infrastructure.assembly import REPOSITORY, Assembly, Resource, Template


@pytest.fixture
def stack(assembly: Assembly, name: str) -> Template:
    return assembly[f"{name}-training"]


@pytest.fixture
def pipeline(stack: Template) -> Resource:
    return stack.one("AWS::SageMaker::Pipeline")


@pytest.fixture
def definition(assembly: Assembly, pipeline: Resource) -> dict[str, Any]:
    text = assembly.flat(pipeline.find("PipelineDefinition", "PipelineDefinitionBody"))
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def text(definition: dict[str, Any]) -> str:
    return json.dumps(definition)


def test_pipeline_and_group_have_the_models_name(stack: Template, pipeline: Resource, name: str) -> None:
    assert pipeline.properties["PipelineName"] == name
    assert stack.one("AWS::SageMaker::ModelPackageGroup").properties["ModelPackageGroupName"] == name


def test_nothing_of_the_definition_is_left_to_fill_in(definition: dict[str, Any]) -> None:
    assert "NORIA_" not in text(definition)


def test_the_definition_is_the_reviewed_one_but_for_what_was_filled_in(definition: dict[str, Any]) -> None:
    reviewed = json.loads((REPOSITORY / "pipelines" / "tabular" / "definition.json").read_text())
    assert [step["Name"] for step in definition["Steps"]] == [step["Name"] for step in reviewed["Steps"]]
    assert definition["Parameters"] == reviewed["Parameters"]


def test_jobs_run_on_what_the_spec_asks_for(definition: dict[str, Any], spec: ModelSpec) -> None:
    steps = {step["Name"]: step["Arguments"] for step in definition["Steps"]}
    assert steps["Train"]["ResourceConfig"]["InstanceType"] == spec.train.instance
    assert steps["Train"]["StoppingCondition"]["MaxRuntimeInSeconds"] == spec.train.timeout.total_seconds()


def test_a_training_is_on_spot_where_the_spec_wants_it_and_may_wait_as_long_as_it_may_take(
    definition: dict[str, Any], spec: ModelSpec
) -> None:
    """Of the two models one is. Without Spot, SageMaker refuses a time to wait; and processing jobs have none."""
    for step in definition["Steps"]:
        on_spot = spec.train.spot and step["Type"] == "Training"
        arguments = step["Arguments"]
        assert bool(arguments.get("EnableManagedSpotTraining")) is on_spot
        limits = arguments.get("StoppingCondition", {})
        assert limits.get("MaxWaitTimeInSeconds") == (2 * spec.train.timeout.total_seconds() if on_spot else None)


def test_only_a_training_on_spot_has_checkpoints_at_its_execution_s_own_place(
    definition: dict[str, Any], spec: ModelSpec, stack: Template, pipeline: Resource
) -> None:
    """The job's program is told the folder, and its role may read and write there, and delete nothing."""
    (arguments,) = (step["Arguments"] for step in definition["Steps"] if step["Type"] == "Training")
    allowed = {
        (action, resource.partition(f"/{spec.model}/")[2])
        for statement in stack.allowed(stack.target(pipeline.properties["RoleArn"]))
        for action in statement["Action"]
        for resource in map(str, statement["Resource"])
        if "checkpoints" in resource
    }
    if not spec.train.spot:
        assert "CheckpointConfig" not in arguments
        assert not allowed
        return
    kept = arguments["CheckpointConfig"]
    *_, folder, execution = kept["S3Uri"]["Std:Join"]["Values"]
    assert folder.endswith(f"/{spec.model}/checkpoints")
    assert execution == {"Get": "Execution.PipelineExecutionId"}
    assert arguments["HyperParameters"]["checkpoints"] == kept["LocalPath"] == "/opt/ml/checkpoints"
    assert allowed == {("s3:GetObject", "checkpoints/*"), ("s3:PutObject", "checkpoints/*")}


def test_jobs_have_no_network_and_their_volumes_and_outputs_are_encrypted(definition: dict[str, Any]) -> None:
    for step in definition["Steps"]:
        arguments = step["Arguments"]
        if step["Type"] == "Training":
            assert arguments["EnableNetworkIsolation"] is True
            assert arguments["OutputDataConfig"]["KmsKeyId"]
            assert arguments["ResourceConfig"]["VolumeKmsKeyId"]
        elif step["Type"] == "Processing":
            assert arguments["NetworkConfig"]["EnableNetworkIsolation"] is True
            assert arguments["ProcessingOutputConfig"]["KmsKeyId"]
            assert arguments["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"]


def test_what_is_trained_awaits_approval_in_the_models_group(definition: dict[str, Any], name: str) -> None:
    assert f'"ModelPackageGroupName": "{name}"' in text(definition)
    assert '"ModelApprovalStatus": "PendingManualApproval"' in text(definition)


def test_a_package_names_the_code_that_made_it(definition: dict[str, Any]) -> None:
    assert digest(bundles.pipeline_code()) in text(definition)


def uris(value: Any) -> set[str]:
    """All S3 URIs that are plain text, and the fixed beginning of those that are joined."""
    match value:
        case str() if value.startswith("s3://"):
            return {value}
        case dict():
            return set().union(*(uris(each) for each in value.values())) if value else set()
        case list():
            return set().union(*(uris(each) for each in value)) if value else set()
    return set()


def test_the_role_of_the_pipeline_reaches_all_that_the_definition_names(
    stack: Template, pipeline: Resource, definition: dict[str, Any]
) -> None:
    allowed = stack.allowed(stack.target(pipeline.properties["RoleArn"]))
    reached = [
        resource
        for statement in allowed
        if {"s3:GetObject", "s3:PutObject"} & set(statement["Action"])
        for resource in statement["Resource"]
    ]
    named = uris(definition)
    assert named
    for uri in named:
        arn = uri.replace("s3://", "arn:aws:s3:::")
        assert any(fnmatch.fnmatchcase(full, r) for r in reached for full in (arn, f"{arn}/x")), uri


def test_the_role_of_the_pipeline_touches_no_other_model_and_no_uploads(
    stack: Template, pipeline: Resource, spec: ModelSpec, assembly: Assembly
) -> None:
    bucket = f"arn:aws:s3:::noria-{assembly.env}-data-123456789012-us-east-1"
    other = "house-prices" if spec.model == "flight-delay" else "flight-delay"
    allowed = stack.allowed(stack.target(pipeline.properties["RoleArn"]))

    def may(action: str, arn: str) -> bool:
        return any(
            action in s["Action"] and any(fnmatch.fnmatchcase(arn, str(r)) for r in s["Resource"]) for s in allowed
        )

    assert may("s3:GetObject", f"{bucket}/{spec.model}/datasets/x/data.csv")
    assert may("s3:PutObject", f"{bucket}/{spec.model}/runs/x/model.tar.gz")
    for area in ("incoming", "quarantine", "labels", "captured", "reports"):
        assert not may("s3:GetObject", f"{bucket}/{spec.model}/{area}/x"), area
    for area in ("incoming", "datasets", "trainings", "captured"):
        assert not may("s3:PutObject", f"{bucket}/{spec.model}/{area}/x"), area
    for area in ("datasets", "runs", "baselines"):
        assert not may("s3:GetObject", f"{bucket}/{other}/{area}/x"), area
    package = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/noria-{assembly.env}"
    assert may("sagemaker:CreateModelPackage", f"{package}-{spec.model}/1")
    assert not may("sagemaker:CreateModelPackage", f"{package}-{other}/1")
    # Who trains does not approve, nor put anything live.
    granted = {action for statement in allowed for action in statement["Action"]}
    assert not granted & {"sagemaker:UpdateModelPackage", "sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"}


def test_only_jobs_make_log_groups_and_the_stack_alone_that_of_the_endpoint(stack: Template, name: str) -> None:
    """Else lines that come late, after the stack has gone, would leave a group that the next deployment stumbles on."""
    made = {}
    for role in stack.of("AWS::IAM::Role"):
        statements = [s for s in stack.allowed(role) if "logs:CreateLogGroup" in s["Action"]]
        arns = [str(arn) for statement in statements for arn in statement["Resource"]]
        made[role.id.rstrip("0123456789ABCDEF")] = {arn.partition(":log-group:")[2] for arn in arns}
        # IAM asks about the group with the (empty) name of a stream behind it.
        group = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/{name}:log-stream:"
        assert not any(fnmatch.fnmatchcase(group, arn) for arn in arns), role.path
    made = {role: groups for role, groups in made.items() if groups}
    assert made == {
        "PipelineRole": {"/aws/sagemaker/ProcessingJobs*", "/aws/sagemaker/TrainingJobs*"},
        "ModelRole": {"/aws/sagemaker/TransformJobs*"},
    }


def test_every_role_is_for_one_service_on_behalf_of_this_account(stack: Template) -> None:
    for role in stack.of("AWS::IAM::Role"):
        (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
        assert list(trust["Principal"]) == ["Service"], role.path
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}, role.path


def test_the_pipeline_comes_after_its_group_and_its_permissions(stack: Template, pipeline: Resource) -> None:
    before = {stack[id_].type for id_ in pipeline.body["DependsOn"]}
    assert before >= {"AWS::SageMaker::ModelPackageGroup", "AWS::IAM::Policy"}


def test_a_training_is_scheduled_if_the_spec_asks_for_it_and_only_then(
    assembly: Assembly, stack: Template, spec: ModelSpec
) -> None:
    schedules = stack.of("AWS::Scheduler::Schedule")
    assert [s.properties["ScheduleExpression"] for s in schedules] == [spec.retrain.schedule] * bool(
        spec.retrain.schedule
    )
    for schedule in schedules:
        target = schedule.properties["Target"]
        queue = assembly.target(stack, target["Arn"])
        assert queue.properties["QueueName"] == f"noria-{assembly.env}-request-retraining"
        sent = json.loads(target["Input"])
        assert (sent["detail-type"], sent["detail"]["model"]) == ("Start Training", spec.model)
        assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
        dead_letters = assembly.target(stack, target["DeadLetterConfig"]["Arn"])
        assert dead_letters.properties["QueueName"] == f"noria-{assembly.env}-dead-letters"


def test_of_the_two_models_one_is_scheduled(models: Any) -> None:
    assert {spec.model for spec in load_all(models) if spec.retrain.schedule} == {"house-prices"}
