"""Application Auto Scaling of the local cloud, through boto3 and CloudFormation: endpoints really grow and shrink.

One minute of the cloud is one second here.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local import load
from local.cloud import ACCOUNT, REGION
from tests.integration.test_local_endpoints import World, eventually, opened

PORT = 4692
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
BODIES = [b"[1, 2]"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("cloud"), port=PORT) as world:
        yield world


@pytest.fixture(scope="module")
def model(world: World) -> str:
    return world.model("v1")


@pytest.fixture
def endpoint(world: World, model: str) -> str:
    """An endpoint of two instances."""
    return world.endpoint(world.config(model, instances=2))


def target(endpoint: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/champion",
        "ScalableDimension": DIMENSION,
    }


def register(world: World, endpoint: str, least: int = 1, most: int = 6) -> None:
    world.client("application-autoscaling").register_scalable_target(
        **target(endpoint), MinCapacity=least, MaxCapacity=most
    )


def instances(world: World, endpoint: str) -> int:
    described = world.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    count: int = described["ProductionVariants"][0]["DesiredInstanceCount"]
    return count


def activities(world: World, endpoint: str, **members: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.client("application-autoscaling").describe_scaling_activities(
        **target(endpoint), **members
    )["ScalingActivities"]
    return found


def track(world: World, endpoint: str, value: float, **config: Any) -> dict[str, Any]:
    metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    answer: dict[str, Any] = world.client("application-autoscaling").put_scaling_policy(
        **target(endpoint),
        PolicyName="load",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": value, **metric, **config},
    )
    return answer


def alarms(world: World, endpoint: str) -> list[dict[str, Any]]:
    prefix = f"TargetTracking-endpoint/{endpoint}/"
    found: list[dict[str, Any]] = world.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
    return found


def test_endpoint_grows_and_shrinks_with_its_traffic(world: World, endpoint: str) -> None:
    register(world, endpoint)
    answer = track(world, endpoint, 10, ScaleOutCooldown=60, ScaleInCooldown=60)
    assert answer["PolicyARN"].endswith(f":resource/sagemaker/endpoint/{endpoint}/variant/champion:policyName/load")
    high, low = sorted(alarms(world, endpoint), key=lambda alarm: alarm["AlarmName"])
    assert (high["Threshold"], high["EvaluationPeriods"], high["ComparisonOperator"]) == (10, 3, "GreaterThanThreshold")
    assert (low["Threshold"], low["EvaluationPeriods"], low["ComparisonOperator"]) == (9, 15, "LessThanThreshold")
    assert {alarm["AlarmName"] for alarm in answer["Alarms"]} == {high["AlarmName"], low["AlarmName"]}

    with load.steady(world.cloud.environment, endpoint, BODIES, per_second=36, connections=4) as busy:
        eventually(lambda: instances(world, endpoint) >= 4, 30)  # a busy machine bunches requests
    with load.steady(world.cloud.environment, endpoint, BODIES, per_second=10, connections=2) as calm:
        eventually(lambda: instances(world, endpoint) in (1, 2), 45)
    assert busy.result.failures == calm.result.failures == []
    done = [each for each in activities(world, endpoint) if each["StatusCode"] == "Successful"]
    assert done[-1]["Description"].startswith("Setting desired instance count to ")
    assert done[-1]["Cause"] == f"monitor alarm {high['AlarmName']} in state ALARM triggered policy load"
    assert low["AlarmName"] in done[0]["Cause"]

    world.client("application-autoscaling").delete_scaling_policy(PolicyName="load", **target(endpoint))
    assert alarms(world, endpoint) == []


def test_a_metric_of_ones_own_is_tracked_too(world: World, endpoint: str) -> None:
    register(world, endpoint)
    scaling, cloudwatch = world.client("application-autoscaling"), world.client("cloudwatch")
    dimensions = [{"Name": "EndpointName", "Value": endpoint}]
    metric = {"Namespace": "Test", "MetricName": "BacklogPerInstance", "Dimensions": dimensions}
    scaling.put_scaling_policy(
        **target(endpoint),
        PolicyName="backlog",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5,
            "CustomizedMetricSpecification": {**metric, "Statistic": "Average"},
            "DisableScaleIn": True,
        },
    )
    [high] = alarms(world, endpoint)
    assert (high["MetricName"], high["Statistic"], high["Threshold"]) == ("BacklogPerInstance", "Average", 5)

    def grown() -> bool:
        datum = {"MetricName": metric["MetricName"], "Dimensions": dimensions, "Value": 12}
        cloudwatch.put_metric_data(Namespace="Test", MetricData=[datum])
        return instances(world, endpoint) == 5

    eventually(grown, 30)


def test_a_waiting_backlog_starts_instances_by_steps(world: World, endpoint: str) -> None:
    register(world, endpoint, most=5)
    scaling = world.client("application-autoscaling")
    arn = scaling.put_scaling_policy(
        **target(endpoint),
        PolicyName="steps",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "Cooldown": 60,
            "StepAdjustments": [
                {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 1},
                {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 3},
            ],
        },
    )["PolicyARN"]
    cloudwatch, alarm = world.client("cloudwatch"), f"{endpoint}-waiting"
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="Test",
        MetricName="Waiting",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[arn],
    )
    [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["steps"])["ScalingPolicies"]
    assert [each["AlarmName"] for each in policy["Alarms"]] == [alarm]

    def waiting(number: float) -> None:
        datum = {"MetricName": "Waiting", "Dimensions": [{"Name": "EndpointName", "Value": endpoint}], "Value": number}
        cloudwatch.put_metric_data(Namespace="Test", MetricData=[datum])

    def scaled(count: int, backlog: float) -> bool:
        waiting(backlog)
        return instances(world, endpoint) == count

    # From two: one more for less than ten, three more for many; and never more than five.
    eventually(lambda: scaled(3, 4), 20)
    eventually(lambda: scaled(5, 40), 20)

    def refused() -> bool:
        waiting(40)
        return "NotScaledReasons" in activities(world, endpoint, IncludeNotScaledActivities=True)[0]

    eventually(refused, 20)
    [last, *_] = activities(world, endpoint, IncludeNotScaledActivities=True)
    assert last["NotScaledReasons"] == [{"Code": "AlreadyAtMaxCapacity", "MaxCapacity": 5}]
    assert all("NotScaledReasons" not in each for each in activities(world, endpoint))


def test_what_waits_for_an_endpoint_without_instances_starts_one(world: World, model: str) -> None:
    name = world.endpoint(
        world.config(model, instances=1, AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://data/answers"}})
    )
    register(world, name, least=0, most=2)
    world.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "champion", "DesiredInstanceCount": 0}]
    )
    arn = world.client("application-autoscaling").put_scaling_policy(
        **target(name),
        PolicyName="from-zero",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )["PolicyARN"]
    world.client("cloudwatch").put_metric_alarm(
        AlarmName=f"{name}-waiting",
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": name}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[arn],
    )
    s3 = world.client("s3")
    s3.put_object(Bucket="data", Key="questions/1.json", Body=BODIES[0])
    assert instances(world, name) == 0
    answer = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=name, InputLocation="s3://data/questions/1.json", ContentType="application/json"
    )["OutputLocation"]
    key = answer.removeprefix("s3://data/")
    eventually(lambda: s3.list_objects_v2(Bucket="data", Prefix=key).get("KeyCount"), 30)
    assert instances(world, name) == 1


def test_a_schedule_moves_the_bounds_and_what_is_beyond_them(world: World, endpoint: str) -> None:
    register(world, endpoint, least=1, most=3)
    scaling = world.client("application-autoscaling")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    scaling.put_scheduled_action(
        **target(endpoint),
        ScheduledActionName="morning",
        Schedule=f"at({soon:%Y-%m-%dT%H:%M:%S})",
        ScalableTargetAction={"MinCapacity": 4, "MaxCapacity": 8},
    )
    scaling.put_scheduled_action(
        **target(endpoint),
        ScheduledActionName="night",
        Schedule="cron(0 20 ? * MON-FRI *)",
        Timezone="Europe/Paris",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1},
    )
    named = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker", ResourceId=target(endpoint)["ResourceId"])
    assert {each["ScheduledActionName"] for each in named["ScheduledActions"]} == {"morning", "night"}
    eventually(lambda: instances(world, endpoint) == 4, 20)
    [found] = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[target(endpoint)["ResourceId"]]
    )["ScalableTargets"]
    assert (found["MinCapacity"], found["MaxCapacity"]) == (4, 8)
    assert activities(world, endpoint)[0]["Cause"] == "scheduled action name morning was triggered"

    # A rate passes in the cloud's time; scaling in goes by schedule, too.
    scaling.put_scheduled_action(
        **target(endpoint),
        ScheduledActionName="evening",
        Schedule="rate(2 minutes)",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 2},
    )
    eventually(lambda: instances(world, endpoint) == 2, 20)
    scaling.delete_scheduled_action(ScheduledActionName="evening", **target(endpoint))


def test_what_is_scaled_keeps_its_variant_and_its_instance_type(world: World, model: str, endpoint: str) -> None:
    register(world, endpoint)
    sagemaker = world.client("sagemaker")

    def update(name: str, instance: str) -> None:
        config = world.name("config")
        variant = {"VariantName": name, "ModelName": model, "InstanceType": instance, "InitialInstanceCount": 2}
        sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant])
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)

    for name, instance in (("champion", "ml.c5.large"), ("another", "ml.m5.large")):
        with pytest.raises(ClientError, match=r"champion must be deregistered as scalable targets"):
            update(name, instance)
    update("champion", "ml.m5.large")
    world.settled(endpoint)

    track(world, endpoint, 100)
    world.client("application-autoscaling").deregister_scalable_target(**target(endpoint))
    assert alarms(world, endpoint) == []
    update("another", "ml.c5.large")
    world.settled(endpoint)


def test_an_endpoint_takes_its_targets_with_it(world: World, endpoint: str) -> None:
    register(world, endpoint)
    track(world, endpoint, 100)
    world.client("sagemaker").delete_endpoint(EndpointName=endpoint)
    eventually(lambda: alarms(world, endpoint) == [], 20)
    scaling = world.client("application-autoscaling")
    assert (
        scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[target(endpoint)["ResourceId"]])[
            "ScalableTargets"
        ]
        == []
    )
    with pytest.raises(scaling.exceptions.ObjectNotFoundException, match="No scalable target"):
        scaling.deregister_scalable_target(**target(endpoint))


def test_nothing_scales_an_endpoint_while_it_is_updated(world: World, model: str, endpoint: str) -> None:
    register(world, endpoint, least=1, most=3)
    sagemaker, config = world.client("sagemaker"), world.config(model, instances=2)
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 300}
    sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig={"BlueGreenUpdatePolicy": policy}
    )
    soon = datetime.now(UTC) + timedelta(seconds=2)  # a schedule has whole seconds, and must not have passed
    world.client("application-autoscaling").put_scheduled_action(
        **target(endpoint),
        ScheduledActionName="now",
        Schedule=f"at({soon:%Y-%m-%dT%H:%M:%S})",
        ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 3},
    )
    [failed] = eventually(lambda: activities(world, endpoint), 20)
    assert failed["StatusCode"] == "Failed"
    assert "Cannot update in-progress endpoint" in failed["StatusMessage"]
    assert instances(world, endpoint) == 2
    eventually(lambda: instances(world, endpoint) == 3, 20)


def test_requests_that_aws_refuses(world: World, endpoint: str) -> None:
    scaling = world.client("application-autoscaling")
    with pytest.raises(ClientError, match="Unsupported service namespace"):
        scaling.register_scalable_target(
            ServiceNamespace="ecs",
            ResourceId="service/a/b",
            ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=1,
            MaxCapacity=2,
        )
    with pytest.raises(ClientError, match="Could not find endpoint"):
        scaling.register_scalable_target(**target("no-such"), MinCapacity=1, MaxCapacity=2)
    with pytest.raises(ClientError, match="minimum <= maximum"):
        scaling.register_scalable_target(**target(endpoint), MinCapacity=3, MaxCapacity=2)
    with pytest.raises(scaling.exceptions.ObjectNotFoundException):
        track(world, endpoint, 10)
    register(world, endpoint)
    with pytest.raises(ClientError, match="larger than zero"):
        track(world, endpoint, 0)
    with pytest.raises(ClientError, match="Schedule"):
        scaling.put_scheduled_action(
            **target(endpoint),
            ScheduledActionName="never",
            Schedule="every morning",
            ScalableTargetAction={"MinCapacity": 1},
        )
    now = datetime.now(UTC)
    with pytest.raises(ClientError, match="UnknownOperationException"):
        scaling.get_predictive_scaling_forecast(
            **target(endpoint), PolicyName="p", StartTime=now, EndTime=now + timedelta(hours=1)
        )


def test_targets_have_tags(world: World, endpoint: str) -> None:
    scaling = world.client("application-autoscaling")
    arn = scaling.register_scalable_target(**target(endpoint), MinCapacity=1, MaxCapacity=2, Tags={"team": "flights"})[
        "ScalableTargetARN"
    ]
    scaling.tag_resource(ResourceARN=arn, Tags={"env": "local"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"env": "local"}


# --- CloudFormation, and what its service role must be allowed

DEPLOYER: list[dict[str, Any]] = [
    {
        "Effect": "Allow",
        "Action": [
            f"application-autoscaling:{action}"
            for action in (
                "DeleteScalingPolicy",
                "DeleteScheduledAction",
                "DeregisterScalableTarget",
                "PutScalingPolicy",
                "PutScheduledAction",
                "RegisterScalableTarget",
            )
        ],
        "Resource": f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/*",
        "Condition": {"StringEquals": {"application-autoscaling:service-namespace": "sagemaker"}},
    },
    {"Effect": "Allow", "Action": "application-autoscaling:Describe*", "Resource": "*"},
    {
        "Effect": "Allow",
        "Action": ["sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpointWeightsAndCapacities"],
        "Resource": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/*",
    },
    {
        "Effect": "Allow",
        "Action": ["cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"],
        "Resource": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:TargetTracking-endpoint/*",
    },
    {
        "Effect": "Allow",
        "Action": "iam:CreateServiceLinkedRole",
        "Resource": "*",
        "Condition": {"StringEquals": {"iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com"}},
    },
]


def template(endpoint: str, *, most: int, schedules: dict[str, str]) -> str:
    actions = [
        {"ScheduledActionName": name, "Schedule": at, "ScalableTargetAction": {"MinCapacity": "1", "MaxCapacity": 2}}
        for name, at in schedules.items()
    ]
    metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    bounds = {"MinCapacity": 1, "MaxCapacity": most, "ScheduledActions": actions}
    resources = {
        "Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": {**target(endpoint), **bounds}},
        "Load": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "load",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": {"Ref": "Target"},
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": "50", **metric},
            },
        },
    }
    outputs = {"Target": {"Value": {"Ref": "Target"}}, "Load": {"Value": {"Ref": "Load"}}}
    return json.dumps({"Resources": resources, "Outputs": outputs})


def stack(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return found


def ended(world: World, name: str) -> dict[str, Any]:
    eventually(lambda: not stack(world, name)["StackStatus"].endswith("IN_PROGRESS"), 40)
    return stack(world, name)


def test_a_stack_scales_an_endpoint_as_its_service_role(world: World, endpoint: str) -> None:
    cloudformation, scaling = world.client("cloudformation"), world.client("application-autoscaling")
    name, role = world.name("stack"), world.role(*DEPLOYER)
    nightly = {"night": "cron(0 20 * * ? *)", "day": "cron(0 6 * * ? *)"}
    cloudformation.create_stack(
        StackName=name, RoleARN=role, TemplateBody=template(endpoint, most=4, schedules=nightly)
    )
    created = ended(world, name)
    assert created["StackStatus"] == "CREATE_COMPLETE", created
    outputs = {output["OutputKey"]: output["OutputValue"] for output in created["Outputs"]}
    resource_id = target(endpoint)["ResourceId"]
    assert outputs["Target"] == f"{resource_id}|{DIMENSION}|sagemaker"
    assert outputs["Load"].endswith(f"{resource_id}:policyName/load")
    assert len(alarms(world, endpoint)) == 2

    weekly = {"night": "cron(0 22 ? * FRI *)"}
    cloudformation.update_stack(StackName=name, TemplateBody=template(endpoint, most=6, schedules=weekly))
    assert ended(world, name)["StackStatus"] == "UPDATE_COMPLETE"
    [found] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource_id])[
        "ScalableTargets"
    ]
    assert found["MaxCapacity"] == 6
    actions = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker", ResourceId=resource_id)
    assert [each["Schedule"] for each in actions["ScheduledActions"]] == ["cron(0 22 ? * FRI *)"]

    cloudformation.delete_stack(StackName=name)
    eventually(lambda: alarms(world, endpoint) == [], 40)
    eventually(
        lambda: (
            scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource_id])[
                "ScalableTargets"
            ]
            == []
        ),
        40,
    )


@pytest.mark.parametrize(
    ("lacking", "action"),
    [
        (0, "application-autoscaling:RegisterScalableTarget"),
        (2, "sagemaker:DescribeEndpoint"),
        (3, "cloudwatch:PutMetricAlarm"),
        (4, "iam:CreateServiceLinkedRole"),
    ],
)
def test_a_service_role_that_lacks_a_permission_fails_the_stack(
    world: World, endpoint: str, lacking: int, action: str
) -> None:
    name = world.name("stack")
    role = world.role(*(statement for number, statement in enumerate(DEPLOYER) if number != lacking))
    cloudformation = world.client("cloudformation")
    cloudformation.create_stack(StackName=name, RoleARN=role, TemplateBody=template(endpoint, most=4, schedules={}))
    assert ended(world, name)["StackStatus"].startswith("ROLLBACK")
    reasons = [
        event.get("ResourceStatusReason", "")
        for event in cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    ]
    assert any(f"not authorized to perform: {action}" in reason for reason in reasons), reasons
