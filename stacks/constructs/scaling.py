"""How a fleet grows and shrinks by itself: by what it has to do, by the clock, and from nothing.

    target      the champion's instances, between `min` and `max`; at some times between others
    load        keeps the work of an instance near `target`: requests (realtime), waiting objects (async)
    from zero   async only: starts the first instance when something waits and there is none

Sources: SageMaker guide, `endpoint-auto-scaling`, `async-inference-autoscale`. Application Auto Scaling works as its
service-linked role, which it makes when it is first needed; so no role is named here.
"""

from datetime import timedelta
from typing import Any

from aws_cdk import CfnCondition
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from noria.serve import Mode, Scale, Serve
from stacks.constructs.endpoint_metrics import NAMESPACE

Policy = autoscaling.CfnScalingPolicy


class Scaling(Construct):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        name: str,
        variant: str,
        serve: Serve,
        scale: Scale,
        endpoint: sagemaker.CfnEndpoint,
        live: CfnCondition,
    ) -> None:
        super().__init__(scope, id_)
        self._name = name
        self._scale = scale
        self._live = live
        self._target = autoscaling.CfnScalableTarget(
            self,
            "Target",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{name}/variant/{variant}",
            min_capacity=scale.min,
            max_capacity=scale.max,
            scheduled_actions=[
                autoscaling.CfnScalableTarget.ScheduledActionProperty(
                    scheduled_action_name=f"{name}-{number}",
                    schedule=each.at,
                    timezone=each.timezone,
                    scalable_target_action=autoscaling.CfnScalableTarget.ScalableTargetActionProperty(
                        min_capacity=each.min, max_capacity=each.max
                    ),
                )
                for number, each in enumerate(scale.schedule, start=1)
            ],
        )
        self._target.cfn_options.condition = live
        # There before, and until after: SageMaker removes no variant that something scales.
        self._target.add_resource_dependency(endpoint)
        self.target = self._target.ref
        self._by_load(serve.mode)
        if scale.ends:
            self._from_zero()

    def _by_load(self, mode: Mode) -> None:
        measured = (
            {"customized_metric_specification": self._backlog("ApproximateBacklogSizePerInstance")}
            if mode is Mode.ASYNC
            else {
                "predefined_metric_specification": Policy.PredefinedMetricSpecificationProperty(
                    predefined_metric_type="SageMakerVariantInvocationsPerInstance"
                )
            }
        )
        self._policy(
            "Load",
            policy_name=f"{self._name}-load",
            policy_type="TargetTrackingScaling",
            target_tracking_scaling_policy_configuration=Policy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=self._scale.target,
                scale_out_cooldown=_seconds(self._scale.out_cooldown),
                scale_in_cooldown=_seconds(self._scale.in_cooldown),
                **measured,
            ),
        )

    def _from_zero(self) -> None:
        policy = self._policy(
            "FromZero",
            policy_name=f"{self._name}-from-zero",
            policy_type="StepScaling",
            step_scaling_policy_configuration=Policy.StepScalingPolicyConfigurationProperty(
                adjustment_type="ChangeInCapacity",
                metric_aggregation_type="Average",
                cooldown=_seconds(self._scale.out_cooldown),
                step_adjustments=[
                    Policy.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1),
                ],
            ),
        )
        alarm = cloudwatch.CfnAlarm(
            self,
            "Waiting",
            alarm_name=f"{self._name}-scale-from-zero",
            alarm_description=f"Something waits for {self._name}, which has no instance: one is started",
            namespace=NAMESPACE,
            metric_name="HasBacklogWithoutCapacity",
            dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="EndpointName", value=self._name)],
            statistic="Average",
            period=60,
            evaluation_periods=1,
            threshold=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[policy.ref],
        )
        alarm.cfn_options.condition = self._live

    def _policy(self, id_: str, **properties: Any) -> Policy:
        policy = Policy(self, id_, scaling_target_id=self._target.ref, **properties)
        policy.cfn_options.condition = self._live
        return policy

    def _backlog(self, metric: str) -> Policy.CustomizedMetricSpecificationProperty:
        return Policy.CustomizedMetricSpecificationProperty(
            namespace=NAMESPACE,
            metric_name=metric,
            dimensions=[Policy.MetricDimensionProperty(name="EndpointName", value=self._name)],
            statistic="Average",
        )


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
