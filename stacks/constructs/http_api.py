"""What every HTTP API of ours has: one stage that is throttled, and logs who asked when, but not what."""

import json

from aws_cdk import RemovalPolicy
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.reaction import RETENTION
from stacks.settings import Settings

ACCESS_LOG = {
    "request": "$context.requestId",
    "time": "$context.requestTime",
    "route": "$context.routeKey",
    "status": "$context.status",
    "ip": "$context.identity.sourceIp",
    "caller": "$context.identity.userArn",
    "subject": "$context.authorizer.claims.sub",
    "milliseconds": "$context.responseLatency",
    "model_milliseconds": "$context.integrationLatency",
    "bytes": "$context.responseLength",
    "error": "$context.error.message",
    "authoriser_error": "$context.authorizer.error",
}
"""Who asked when, and what came of it; nothing of what was asked or answered."""


def stage(
    scope: Construct, api: apigateway.HttpApi, *, name: str, settings: Settings, key: kms.IKey, rate: float, burst: int
) -> None:
    """The API's default stage, for `rate` requests a second and `burst` at once; `name` is that of its log group."""
    log_group = logs.LogGroup(
        scope,
        "Access",
        # The prefix spares a resource policy for each log group: API Gateway guide, `http-api-logging`.
        log_group_name=f"/aws/vendedlogs/{name}",
        retention=RETENTION[settings.log_days],
        encryption_key=key,
        removal_policy=RemovalPolicy.DESTROY,
    )
    apigateway.CfnStage(
        scope,
        "Stage",
        api_id=api.api_id,
        stage_name="$default",
        auto_deploy=True,
        default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
            throttling_rate_limit=rate, throttling_burst_limit=burst
        ),
        access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
            destination_arn=log_group.log_group_arn, format=json.dumps(ACCESS_LOG)
        ),
    )
