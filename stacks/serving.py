"""One model as it is to be served. Going live, A/B, shadow and rollback are updates of this stack's parameters.

| parameter              | none, or …                                                                               |
|------------------------|------------------------------------------------------------------------------------------|
| `ModelPackageArn`      | the champion; without it there is no endpoint, only its alarms                           |
| `ChallengerPackageArn` | gets `ChallengerWeight` of the traffic for each 1 that the champion gets                 |
| `ShadowPackageArn`     | gets a copy of all requests; its answers go nowhere                                      |
| `Guardrails`           | `off` for the update that adds or removes a challenger: else SageMaker refuses it;       |
|                        | `at-once` for the way back: watched as ever, and not in steps                            |

| mode       | what there is                                | parameters           | a deployment                      |
|------------|----------------------------------------------|----------------------|-----------------------------------|
| realtime   | model, endpoint, alarms, scaling             | all                  | by strategy, back on any alarm    |
| async      | the same; answers are objects in S3          | champion, guardrails | the same                          |
| serverless | model, endpoint; its log has what it answers | champion             | at once, without guardrails       |
| batch      | model, for transform jobs                    | champion             | at once: there is nothing to move |
"""

from dataclasses import dataclass
from typing import Any

from aws_cdk import (
    ArnFormat,
    CfnCondition,
    CfnDeletionPolicy,
    CfnOutput,
    CfnParameter,
    CfnResource,
    CfnRule,
    CfnRuleAssertion,
    DefaultStackSynthesizer,
    Environment,
    Fn,
    Stack,
)
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from noria.names import Area
from noria.serve import Mode, Serverless, Strategy
from noria.spec import ModelSpec
from stacks.constructs.endpoint_alarms import EndpointAlarms
from stacks.constructs.endpoint_metrics import EndpointMetrics
from stacks.constructs.generated import logical_id
from stacks.constructs.guardrails import guardrails
from stacks.constructs.placement import Placement
from stacks.constructs.scaling import Scaling
from stacks.foundation import Foundation
from stacks.settings import Settings
from stacks.training import Training

NONE = "none"
PACKAGE = r"none|arn:[a-z-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/[A-Za-z0-9-]+/\d+"
NO_VALUE = {"Ref": "AWS::NoValue"}

CAPTURED_LINE = '"noria" "capture"'
"""A filter pattern: the lines with both words. keep_predictions tells the container's records from the rest of them."""


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """What may answer beside the champion, as the template has it, and the condition that a challenger does."""

    challenger: Any
    shadows: Any
    challenged: CfnCondition


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
        placement: Placement | None = None,
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
        self._settings = settings
        self._spec = spec
        self._serve = spec.serve
        self._name = settings.names.model(spec.model)
        self._foundation = foundation
        self._training = training
        self._placement = placement

        self._package = self._package_parameter("ModelPackageArn", "The package that answers")
        self._live = self._given("Live", self._package)
        model = self._model("Model", self._package, self._live)
        if self._serve.mode.has_endpoint:
            self._served(model)
        else:
            self._output("ChampionModelName", model.attr_model_name, "What transform jobs use").condition = self._live
        self._output("Mode", self._serve.mode.value, "How the model answers")
        self._output("DeployerRoleArn", training.deployer_role.role_arn, "What an update of this stack must be done by")

    def _served(self, model: sagemaker.CfnModel) -> None:
        rivals = self._rivals() if self._serve.mode is Mode.REALTIME else None
        config = self._endpoint_config(self._variant("champion", model), rivals)
        endpoint = self._endpoint(config)
        endpoint.add_resource_dependency(self._log_group())
        if self._serve.mode.has_instances:
            endpoint.add_property_override("DeploymentConfig", self._guarded(config, rivals))
        if self._serve.scale:
            scaling = Scaling(
                self,
                "Scaling",
                name=self._name,
                variant="champion",
                serve=self._serve,
                scale=self._serve.scale,
                endpoint=endpoint,
                live=self._live,
            )
            self._output("ScalingTarget", scaling.target, "What Application Auto Scaling moves").condition = self._live

    # --- parameters, conditions and outputs

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

    def _output(self, id_: str, value: str, description: str) -> CfnOutput:
        return CfnOutput(self, id_, value=value, description=description)

    # --- models and variants

    def _model(self, part: str, package: CfnParameter, condition: CfnCondition) -> sagemaker.CfnModel:
        serverless = self._serve.mode is Mode.SERVERLESS
        model = sagemaker.CfnModel(
            self,
            part,
            execution_role_arn=self._training.model_role.role_arn,
            # Serverless endpoints have neither isolation nor data capture: there the container logs what it answers.
            enable_network_isolation=None if serverless else True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                model_package_name=package.value_as_string,
                environment={"NORIA_CAPTURE": "stdout"} if serverless and self._serve.capture else None,
            ),
            vpc_config=self._placement.of_models() if self._placement else None,
        )
        model.override_logical_id(logical_id(self._name, part))
        model.cfn_options.condition = condition
        _outlives_its_replacement(model)
        return model

    def _variant(self, name: str, model: sagemaker.CfnModel, weight: float = 1) -> dict[str, Any]:
        variant = {"VariantName": name, "ModelName": model.attr_model_name, "InitialVariantWeight": weight}
        if self._serve.mode.has_instances:
            return {**variant, "InstanceType": self._serve.instance, "InitialInstanceCount": self._serve.count}
        size = self._serve.serverless or Serverless()
        return {
            **variant,
            "ServerlessConfig": {"MemorySizeInMB": size.memory_mb, "MaxConcurrency": size.concurrency},
        }

    def _rivals(self) -> Rivals:
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
        self._not_both(challenger, shadow)
        challenged = self._given("Challenged", self._package, challenger)
        shadowed = self._given("Shadowed", self._package, shadow)
        return Rivals(
            challenger=Fn.condition_if(
                challenged.logical_id,
                self._variant(
                    "challenger", self._model("ChallengerModel", challenger, challenged), weight.value_as_number
                ),
                NO_VALUE,
            ),
            shadows=Fn.condition_if(
                shadowed.logical_id,
                [self._variant("shadow", self._model("ShadowModel", shadow, shadowed))],
                NO_VALUE,
            ),
            challenged=challenged,
        )

    # --- the endpoint

    def _endpoint_config(self, champion: dict[str, Any], rivals: Rivals | None) -> sagemaker.CfnEndpointConfig:
        config = sagemaker.CfnEndpointConfig(
            self,
            "EndpointConfig",
            production_variants=[],
            data_capture_config=self._capture() if self._serve.captures else None,
            async_inference_config=self._asynchronous() if self._serve.mode is Mode.ASYNC else None,
        )
        # Written as the template has it: the typed properties don't take a condition in place of a variant.
        config.add_property_override("ProductionVariants", [champion, *([rivals.challenger] if rivals else [])])
        if rivals:
            config.add_property_override("ShadowProductionVariants", rivals.shadows)
        config.override_logical_id(logical_id(self._name, "EndpointConfig"))
        config.cfn_options.condition = self._live
        _outlives_its_replacement(config)
        return config

    def _capture(self) -> sagemaker.CfnEndpointConfig.DataCaptureConfigProperty:
        return sagemaker.CfnEndpointConfig.DataCaptureConfigProperty(
            enable_capture=True,
            destination_s3_uri=self._area("captured"),
            initial_sampling_percentage=self._serve.capture,
            capture_options=[
                sagemaker.CfnEndpointConfig.CaptureOptionProperty(capture_mode=mode) for mode in ("Input", "Output")
            ],
            # Without these, what was captured is base64.
            capture_content_type_header=sagemaker.CfnEndpointConfig.CaptureContentTypeHeaderProperty(
                csv_content_types=["text/csv"], json_content_types=["application/json"]
            ),
        )

    def _asynchronous(self) -> sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty:
        return sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty(
            output_config=sagemaker.CfnEndpointConfig.AsyncInferenceOutputConfigProperty(
                s3_output_path=self._area("async-results"),
                s3_failure_path=self._area("async-failures"),
                kms_key_id=self._foundation.key.key_arn,
                notification_config=sagemaker.CfnEndpointConfig.AsyncInferenceNotificationConfigProperty(
                    success_topic=self._topic("async-results"), error_topic=self._topic("async-failures")
                ),
            )
        )

    def _topic(self, area: Area) -> str:
        # By its name: an export could not go while this stack still imports it.
        return self.format_arn(service="sns", resource=self._settings.names.topic(self._spec.model, area))

    def _area(self, area: Area) -> str:
        return f"s3://{self._foundation.data_bucket_name}/{self._spec.model}/{area}"

    def _endpoint(self, config: sagemaker.CfnEndpointConfig) -> sagemaker.CfnEndpoint:
        # A fleet that scales keeps its size; but a version must start once, also where nothing happens to run now.
        scale = self._serve.scale
        sized = scale is not None and not scale.ends
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self._name,
            endpoint_config_name=config.attr_endpoint_config_name,
            retain_all_variant_properties=True if sized else None,
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredWeight")
            ]
            if sized
            else None,
        )
        endpoint.cfn_options.condition = self._live
        return endpoint

    def _guarded(self, config: sagemaker.CfnEndpointConfig, rivals: Rivals | None) -> Any:
        """The endpoint's DeploymentConfig, and the alarms that it goes back on."""
        parameter = CfnParameter(
            self,
            "Guardrails",
            default="on",
            allowed_values=["on", "at-once", "off"],
            description="off for the update that adds or removes a challenger, at-once for the way back",
        )
        # With guardrails both configurations must have the same variants; a shadow is not one of them.
        # Source: SageMaker guide, `deployment-guardrails-exclusions`.
        off = Fn.condition_equals(parameter.value_as_string, "off")
        on = CfnCondition(self, "Guarded", expression=Fn.condition_not(off))
        back = CfnCondition(self, "Back", expression=Fn.condition_equals(parameter.value_as_string, "at-once"))
        serve = self._serve
        alarms = EndpointAlarms(
            self,
            "Rollback",
            role="rollback",
            subject="The new fleet",
            consequence="a deployment goes back",
            serve=serve,
            # There before the endpoint is, so that its first deployment finds them.
            metrics=self._metrics(
                "champion", Fn.condition_if(self._live.logical_id, config.attr_endpoint_config_name, NONE).to_string()
            ),
        ).names
        at_once = guardrails(serve.model_copy(update={"strategy": Strategy.ALL_AT_ONCE}), alarms=alarms)
        policy: Any = Fn.condition_if(back.logical_id, at_once, guardrails(serve, alarms=alarms))
        if rivals:
            EndpointAlarms(
                self,
                "Challenger",
                role="challenger",
                subject="The challenger",
                consequence="it is abandoned",
                serve=serve,
                metrics=self._metrics("challenger", config.attr_endpoint_config_name),
                condition=rivals.challenged,
            )
            if serve.strategy is Strategy.ROLLING:
                # A rolling deployment knows one variant only.
                policy = Fn.condition_if(rivals.challenged.logical_id, at_once, policy)
        return Fn.condition_if(on.logical_id, policy, NO_VALUE)

    def _metrics(self, variant: str, config: str) -> EndpointMetrics:
        """Of the new fleet alone: the old one's many good answers must not dilute the canary's bad ones."""
        return EndpointMetrics(
            endpoint=self._name,
            variant=variant,
            config=config,
            min_requests=self._serve.min_requests,
            asynchronous=self._serve.mode is Mode.ASYNC,
        )

    def _log_group(self) -> logs.CfnLogGroup:
        """Where SageMaker writes what the containers say; made before it would, so that it is encrypted and ends."""
        group = logs.CfnLogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/sagemaker/Endpoints/{self._name}",
            retention_in_days=self._settings.log_days,
            kms_key_id=self._foundation.key.key_arn,
        )
        if self._serve.mode is Mode.SERVERLESS and self._serve.capture:
            logs.CfnSubscriptionFilter(
                self,
                "Captured",
                log_group_name=group.ref,
                filter_pattern=CAPTURED_LINE,
                # By its name, so that the function can change without this stack.
                destination_arn=self.format_arn(
                    service="lambda",
                    resource="function",
                    resource_name=self._settings.names.function("keep-predictions"),
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                ),
            )
        return group


def _outlives_its_replacement(resource: CfnResource) -> None:
    """SageMaker may go back to this one, whatever the stack then says; confirm_deployment removes it when unused."""
    resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
    resource.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
