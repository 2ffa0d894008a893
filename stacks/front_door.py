"""One model's front door: an HTTP API before its endpoint, and the flags that say who gets which variant.

    caller ─ API (who asks, how often) ─ function (what is asked) ─ endpoint
                                              └ flags (AppConfig)

Flags are data, not part of a deployment: the template has the first ones, without a rule, and never touches later ones.
Each change of them reaches a growing share of the function's processes and goes back when this stack's alarms speak.
"""

from collections.abc import Mapping

from aws_cdk import CfnOutput, Duration, Environment, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from noria import serve
from noria.alarms import CAUSES, Told
from noria.names import METRIC_NAMESPACE, OUTSIDE_HOURS, SERVICE
from noria.spec import ModelSpec
from stacks import bundles
from stacks.constructs.flags import Flags
from stacks.constructs.http_api import stage
from stacks.constructs.permissions import Grant, allow
from stacks.constructs.placement import Placement
from stacks.constructs.reaction import Surroundings, Work, function, layers, models_folder
from stacks.foundation import Foundation
from stacks.settings import Settings

TIMEOUT = 29
"""Seconds: API Gateway itself waits 30 for a function."""

ON_THE_WAY_MS = 100
"""What API, function and flags may take, on top of the model."""


class FrontDoor(Stack):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        spec: ModelSpec,
        door: serve.FrontDoor,
        foundation: Foundation,
        placement: Placement | None = None,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.stack(spec.model, "front-door"),
            description=f"Noria ({settings.env}): the HTTP API before {spec.model}, and its flags",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._spec = spec
        self._door = door
        self._name = settings.names.stack(spec.model, "front-door")
        # Imported, so that what is granted here doesn't rewrite the key's policy in the other stack.
        self._key = kms.Key.from_key_arn(self, "Key", foundation.key.key_arn)

        api = apigateway.HttpApi(
            self,
            "Api",
            api_name=self._name,
            description=f"Predictions of {spec.model}",
            create_default_stage=False,
        )
        stage(self, api, name=self._name, settings=settings, key=self._key, rate=door.rate, burst=door.burst)
        alarms = self._alarms(api)
        flags = Flags(self, "Flags", name=self._name, env=settings.env, alarms=alarms, bake=spec.serve.bake)
        surroundings = Surroundings(
            settings=settings,
            key=self._key,
            # Of its own: one that another stack exports could not change while this one imports it.
            layers=layers(self, prefix=self._name, target=settings.target, specs=[spec], data=False),
            variables=self._variables(api, flags),
            placement=placement,
        )
        self._routes(api, self._function(surroundings, flags))

        CfnOutput(self, "ApiUrl", value=api.api_endpoint, description="POST /predict, GET /openapi.json")
        for name, value in flags.outputs.items():
            CfnOutput(self, name, value=value, description="Where noria flags finds them")

    # --- the API

    def _routes(self, api: apigateway.HttpApi, target: lambda_.Function) -> None:
        integration = integrations.HttpLambdaIntegration("Function", target, timeout=Duration.seconds(TIMEOUT))
        authorizer = self._authorizer()
        for method, path in (
            (apigateway.HttpMethod.POST, "/predict"),
            (apigateway.HttpMethod.GET, "/openapi.json"),
        ):
            api.add_routes(path=path, methods=[method], integration=integration, authorizer=authorizer)

    def _authorizer(self) -> apigateway.IHttpRouteAuthorizer:
        match self._door.auth:
            case serve.Jwt(issuer=issuer, audience=audience):
                return authorizers.HttpJwtAuthorizer("Jwt", issuer, jwt_audience=list(audience))
            case _:
                return authorizers.HttpIamAuthorizer()

    def _alarms(self, api: apigateway.HttpApi) -> list[cloudwatch.Alarm]:
        """They tell nobody themselves: stacks/monitoring.py makes one of them and the endpoint's own."""
        limits = self._spec.serve
        requests = self._metric(api, "Count", cloudwatch.Stats.SUM)
        # Where a model has hours, callers who do not keep to them raise no alarm.
        excused = {"excused": self._outside_hours()} if limits.hours else {}
        alarms = []
        self.alarm_names: list[str] = []
        for what, meaning, expression, metric, threshold in (
            (
                "errors",
                "answers with 5XX",
                "(value - FILL(excused, 0)) / requests" if excused else "value / requests",
                self._metric(api, "5xx", cloudwatch.Stats.SUM),
                limits.error_rate,
            ),
            (
                "latency",
                "answers slowly",
                "value",
                self._metric(api, "Latency", cloudwatch.Stats.percentile(95)),
                limits.latency_p95_ms + ON_THE_WAY_MS,
            ),
        ):
            self.alarm_names.append(name := f"{self._name}-{what}")
            alarm = cloudwatch.Alarm(
                self,
                f"Alarm-{what}",
                alarm_name=name,
                alarm_description=Told(severity=CAUSES["serving"].severity, runbook=f"front-door-{what}").describe(
                    f"{self._name} {meaning}."
                ),
                metric=cloudwatch.MathExpression(
                    expression=f"IF(requests >= {limits.min_requests}, {expression}, 0)",
                    using_metrics={"requests": requests, "value": metric} | (excused if what == "errors" else {}),
                    period=Duration.minutes(1),
                ),
                threshold=threshold,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                # Short, so that flags which do harm go back while few have them.
                evaluation_periods=3,
                datapoints_to_alarm=2,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            alarms.append(alarm)
        return alarms

    def _outside_hours(self) -> cloudwatch.IMetric:
        return cloudwatch.Metric(
            namespace=METRIC_NAMESPACE,
            metric_name=OUTSIDE_HOURS,
            dimensions_map={"Model": self._spec.model, "service": SERVICE},
            statistic=cloudwatch.Stats.SUM,
            period=Duration.minutes(1),
        )

    def _metric(self, api: apigateway.HttpApi, name: str, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/ApiGateway",
            metric_name=name,
            dimensions_map={"ApiId": api.api_id},
            statistic=statistic,
            period=Duration.minutes(1),
        )

    # --- the function

    def _variables(self, api: apigateway.HttpApi, flags: Flags) -> Mapping[str, str]:
        return {
            "NORIA_ENV": self._settings.env,
            "NORIA_MODEL": self._spec.model,
            "NORIA_MODELS_DIR": models_folder(self._settings.target, [self._spec]),
            "NORIA_URL": api.api_endpoint,
            "NORIA_FLAGS_APPLICATION": flags.application,
            "NORIA_FLAGS_ENVIRONMENT": flags.environment,
            "NORIA_FLAGS_PROFILE": flags.profile,
            "POWERTOOLS_SERVICE_NAME": "noria",
        }

    def _function(self, surroundings: Surroundings, flags: Flags) -> lambda_.Function:
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        allow(
            role,
            Grant(
                actions=["sagemaker:InvokeEndpoint"],
                resources=[
                    self.format_arn(
                        service="sagemaker",
                        resource="endpoint",
                        resource_name=self._settings.names.model(self._spec.model),
                    )
                ],
            ),
            Grant(
                actions=["appconfig:StartConfigurationSession", "appconfig:GetLatestConfiguration"],
                resources=[flags.arn],
            ),
        )
        return function(
            self,
            folder=bundles.FRONT_DOOR,
            name=self._name,
            role=role,
            surroundings=surroundings,
            # A request waits for it: a gigabyte brings a larger share of a processor.
            work=Work(timeout=TIMEOUT, memory=1024),
        )
