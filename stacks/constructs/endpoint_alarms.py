"""What speaks against a version while it is new: errors, slowness, wrong golden rows, answers that have shifted."""

from aws_cdk import CfnCondition, CfnResource
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from noria.alarms import Told
from noria.serve import Mode, Serve
from stacks.constructs.endpoint_metrics import EndpointMetrics


class EndpointAlarms(Construct):
    """Alarms `<endpoint>-<role>-<what>`, each with its runbook `<role>-<what>`; only under `condition` where given.

    Nobody is paged by them: SageMaker, or deploy_model, goes back, and says so. Only a real-time endpoint can be asked
    golden rows and past requests while it is deployed.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        role: str,
        subject: str,
        consequence: str,
        serve: Serve,
        metrics: EndpointMetrics,
        condition: CfnCondition | None = None,
    ) -> None:
        super().__init__(scope, id_)
        watched: list[tuple[str, str, cloudwatch.IMetric, float]] = [
            ("errors", "answers with 5XX", metrics.error_rate(), serve.error_rate),
            ("latency", "answers slowly", metrics.latency_p95_ms(), serve.latency_p95_ms),
        ]
        if serve.mode is Mode.REALTIME and serve.golden:
            watched.append(("golden", "answers golden rows wrongly", metrics.golden_rows_wrong(), 0))
        if serve.mode is Mode.REALTIME and serve.prediction_shift is not None:
            watched.append(
                ("shift", "answers unlike the version before", metrics.prediction_shift(), serve.prediction_shift)
            )
        self.names: list[str] = []
        for what, does, metric, limit in watched:
            alarm = cloudwatch.Alarm(
                self,
                what,
                alarm_name=f"{metrics.endpoint}-{role}-{what}",
                alarm_description=Told(severity=None, runbook=f"{role}-{what}").describe(
                    f"{subject} {does}: {consequence}."
                ),
                metric=metric,
                threshold=limit,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=1,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            if condition is not None and isinstance(alarm.node.default_child, CfnResource):
                alarm.node.default_child.cfn_options.condition = condition
            self.names.append(alarm.alarm_name)
