"""One model's endpoint as it should be. Going live, A/B, shadow and rollback are updates of this stack's parameters.

| parameter              | none, or …                                                                              |
|------------------------|------------------------------------------------------------------------------------------|
| `ModelPackageArn`      | the champion; without it there is no endpoint, only its alarms                           |
| `ChallengerPackageArn` | gets `ChallengerWeight` of the traffic for each 1 that the champion gets                 |
| `ShadowPackageArn`     | gets a copy of all requests; its answers go nowhere                                      |
| `Guardrails`           | `off` for the update that adds or removes a challenger: else SageMaker refuses it        |

A deployment is blue/green: one canary instance of the new fleet answers for a while, and this stack's alarms, which
look at the new endpoint configuration alone, decide whether the rest follows or SageMaker goes back.
"""

from typing import Any

from aws_cdk import (
    CfnCondition,
    CfnDeletionPolicy,
    CfnOutput,
    CfnParameter,
    CfnResource,
    CfnRule,
    CfnRuleAssertion,
    DefaultStackSynthesizer,
    Duration,
    Environment,
    Fn,
    Stack,
)
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from noria.names import key
from noria.spec import ModelSpec
from stacks.constructs.endpoint_metrics import EndpointMetrics
from stacks.constructs.generated import logical_id
from stacks.foundation import Foundation
from stacks.settings import Settings
from stacks.training import Training

NONE = "none"
PACKAGE = r"none|arn:[a-z-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/[A-Za-z0-9-]+/\d+"

TERMINATION_WAIT = Duration.minutes(5)
"""How long the old fleet stays after the new one has all traffic: a rollback needs no new instances meanwhile."""

PROVISIONING = Duration.hours(1)
"""Allowance for instances to start, on top of the time that a deployment waits on purpose."""


class Serving(Stack):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        spec: ModelSpec,
        foundation: Foundation,
        training: Training,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.stack(spec.model, "serving"),
            description=f"Noria ({settings.env}): what serves {spec.model}; its parameters are set by deploy_model",
            env=env,
            termination_protection=settings.termination_protection,
            # UpdateStack with the previous template must not have to find the bootstrap version in SSM.
            synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        self._spec = spec
        self._name = settings.names.model(spec.model)
        self._role_arn = training.model_role.role_arn
        self._captured = f"s3://{foundation.data_bucket_name}/{key(spec.model, 'captured', '').rstrip('/')}"

        package = self._package_parameter("ModelPackageArn", "The package that answers")
        challenger = self._package_parameter("ChallengerPackageArn", "The package that gets a part of the traffic")
        weight = CfnParameter(
            self,
            "ChallengerWeight",
            type="Number",
            default=0,
            min_value=0,
            max_value=100,
            description="Requests that the challenger gets for each one of the champion",
        )
        shadow = self._package_parameter("ShadowPackageArn", "The package that gets a copy of every request")
        guardrails = CfnParameter(
            self,
            "Guardrails",
            default="on",
            allowed_values=["on", "off"],
            description="off for the update that adds or removes a challenger; deploy_model switches them on",
        )
        self._not_both(challenger, shadow)

        live = self._given("Live", package)
        challenged = self._given("Challenged", package, challenger)
        shadowed = self._given("Shadowed", package, shadow)
        guarded = CfnCondition(self, "Guarded", expression=Fn.condition_equals(guardrails.value_as_string, "on"))

        config = self._endpoint_config(
            champion=self._variant("champion", self._model("Model", package, live), 1),
            challenger=Fn.condition_if(
                challenged.logical_id,
                self._variant(
                    "challenger", self._model("ChallengerModel", challenger, challenged), weight.value_as_number
                ),
                NO_VALUE,
            ),
            shadow=Fn.condition_if(
                shadowed.logical_id,
                [self._variant("shadow", self._model("ShadowModel", shadow, shadowed), 1)],
                NO_VALUE,
            ),
            live=live,
        )
        alarms = self._rollback_alarms(
            EndpointMetrics(
                endpoint=self._name,
                variant="champion",
                config=Fn.condition_if(live.logical_id, config.attr_endpoint_config_name, NONE).to_string(),
                min_requests=spec.serve.min_requests,
            )
        )
        self._endpoint(config, alarms, live, guarded)
        CfnOutput(
            self,
            "DeployerRoleArn",
            value=training.deployer_role.role_arn,
            description="What an update of this stack must be done with",
        )

    # --- parameters and conditions

    def _package_parameter(self, name: str, description: str) -> CfnParameter:
        return CfnParameter(self, name, default=NONE, allowed_pattern=PACKAGE, description=f"{description}, or none")

    def _given(self, id_: str, *parameters: CfnParameter) -> CfnCondition:
        given = [Fn.condition_not(Fn.condition_equals(parameter.value_as_string, NONE)) for parameter in parameters]
        return CfnCondition(self, id_, expression=given[0] if len(given) == 1 else Fn.condition_and(*given))

    def _not_both(self, challenger: CfnParameter, shadow: CfnParameter) -> None:
        none = [Fn.condition_equals(parameter.value_as_string, NONE) for parameter in (challenger, shadow)]
        CfnRule(
            self,
            "ChallengerOrShadow",
            assertions=[
                CfnRuleAssertion(
                    assert_=Fn.condition_or(*none),
                    assert_description="SageMaker has a shadow beside one production variant only: end the A/B first",
                )
            ],
        )

    # --- resources

    def _model(self, part: str, package: CfnParameter, condition: CfnCondition) -> sagemaker.CfnModel:
        model = sagemaker.CfnModel(
            self,
            part,
            execution_role_arn=self._role_arn,
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                model_package_name=package.value_as_string
            ),
        )
        model.override_logical_id(logical_id(self._name, part))
        model.cfn_options.condition = condition
        _outlives_its_replacement(model)
        return model

    def _variant(self, name: str, model: sagemaker.CfnModel, weight: float) -> dict[str, Any]:
        return {
            "VariantName": name,
            "ModelName": model.attr_model_name,
            "InstanceType": self._spec.serve.instance,
            "InitialInstanceCount": self._spec.serve.count,
            "InitialVariantWeight": weight,
        }

    def _endpoint_config(
        self, *, champion: dict[str, Any], challenger: Any, shadow: Any, live: CfnCondition
    ) -> sagemaker.CfnEndpointConfig:
        config = sagemaker.CfnEndpointConfig(
            self,
            "EndpointConfig",
            production_variants=[],
            data_capture_config=sagemaker.CfnEndpointConfig.DataCaptureConfigProperty(
                enable_capture=True,
                destination_s3_uri=self._captured,
                initial_sampling_percentage=self._spec.serve.capture,
                capture_options=[
                    sagemaker.CfnEndpointConfig.CaptureOptionProperty(capture_mode=mode) for mode in ("Input", "Output")
                ],
                # Without these, what was captured is base64.
                capture_content_type_header=sagemaker.CfnEndpointConfig.CaptureContentTypeHeaderProperty(
                    csv_content_types=["text/csv"], json_content_types=["application/json"]
                ),
            )
            if self._spec.serve.capture
            else None,
        )
        # Written as the template has it: the typed properties don't take a condition in place of a variant.
        config.add_property_override("ProductionVariants", [champion, challenger])
        config.add_property_override("ShadowProductionVariants", shadow)
        config.override_logical_id(logical_id(self._name, "EndpointConfig"))
        config.cfn_options.condition = live
        _outlives_its_replacement(config)
        return config

    def _rollback_alarms(self, metrics: EndpointMetrics) -> list[cloudwatch.Alarm]:
        serve = self._spec.serve
        return [
            cloudwatch.Alarm(
                self,
                f"Rollback-{what}",
                alarm_name=f"{self._name}-rollback-{what}",
                alarm_description=f"{meaning}: a deployment goes back. docs/runbooks/rollback-{what}.md",
                metric=metric,
                threshold=threshold,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=1,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            for what, meaning, metric, threshold in (
                ("errors", "The new fleet answers with 5XX", metrics.error_rate(), serve.error_rate),
                ("latency", "The new fleet answers slowly", metrics.latency_p95_ms(), serve.latency_p95_ms),
            )
        ]

    def _endpoint(
        self,
        config: sagemaker.CfnEndpointConfig,
        alarms: list[cloudwatch.Alarm],
        live: CfnCondition,
        guarded: CfnCondition,
    ) -> None:
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self._name,
            endpoint_config_name=config.attr_endpoint_config_name,
            # What was scaled out stays so; weights are what this template says.
            retain_all_variant_properties=True,
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredWeight"),
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DataCaptureConfig"),
            ],
            # With guardrails both configurations must have the same variants; a shadow is not one of them.
            # Source: SageMaker guide, `deployment-guardrails-exclusions`.
            deployment_config=Fn.condition_if(guarded.logical_id, self._guardrails(alarms), NO_VALUE),
        )
        endpoint.cfn_options.condition = live

    def _guardrails(self, alarms: list[cloudwatch.Alarm]) -> dict[str, Any]:
        """A DeploymentConfig as the template has it."""
        serve = self._spec.serve
        bake = int(serve.bake.total_seconds())
        canary = serve.strategy == "canary"
        routing = {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}
        waits = bake * (2 if canary else 1) + int(TERMINATION_WAIT.to_seconds())
        return {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    **(routing if canary else {"Type": "ALL_AT_ONCE"}),
                    "WaitIntervalInSeconds": bake,
                },
                "TerminationWaitInSeconds": int(TERMINATION_WAIT.to_seconds()),
                "MaximumExecutionTimeoutInSeconds": waits + int(PROVISIONING.to_seconds()),
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm.alarm_name} for alarm in alarms]},
        }


NO_VALUE = {"Ref": "AWS::NoValue"}


def _outlives_its_replacement(resource: CfnResource) -> None:
    """SageMaker may go back to this one, whatever the stack then says; confirm_deployment removes it when unused."""
    resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
    resource.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
