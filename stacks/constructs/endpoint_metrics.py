"""What an endpoint's variant does, minute by minute, as metric math that is silent while there is little traffic."""

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

from noria.names import METRIC_NAMESPACE

NAMESPACE = "AWS/SageMaker"
PERIOD = Duration.minutes(1)
MICROSECONDS_IN_A_MILLISECOND = 1000


@dataclass(frozen=True, kw_only=True)
class EndpointMetrics:
    """Of all of a variant's fleets, or of the one with the endpoint configuration `config`.

    SageMaker publishes each metric with and without `EndpointConfigName`. With it, the old fleet's many good answers
    don't dilute the canary's bad ones. Source: SageMaker guide, `deployment-guardrails-configuration`.
    """

    endpoint: str
    variant: str
    min_requests: int
    asynchronous: bool = False
    config: str | None = None

    def error_rate(self) -> cloudwatch.MathExpression:
        """Share of requests answered 5XX, between 0 and 1."""
        return self._math("errors / requests", errors=self.metric("Invocation5XXErrors", cloudwatch.Stats.SUM))

    def latency_p95_ms(self) -> cloudwatch.MathExpression:
        """95th percentile of the model's latency in milliseconds."""
        latency = self.metric("ModelLatency", cloudwatch.Stats.percentile(95))
        return self._math(f"latency / {MICROSECONDS_IN_A_MILLISECOND}", latency=latency)

    def requests(self) -> cloudwatch.Metric:
        """How many; asynchronous endpoints have no Invocations, but a latency of each (`async-inference-monitor`)."""
        if self.asynchronous:
            return self.metric("ModelLatency", cloudwatch.Stats.SAMPLE_COUNT)
        return self.metric("Invocations", cloudwatch.Stats.SUM)

    def golden_rows_wrong(self) -> cloudwatch.Metric:
        """How many rows with known answers were answered otherwise."""
        return self.metric("GoldenRowsWrong", cloudwatch.Stats.MAXIMUM, namespace=METRIC_NAMESPACE)

    def prediction_shift(self) -> cloudwatch.Metric:
        """PSI between the answers of the version before and of this one to the same requests."""
        return self.metric("PredictionShift", cloudwatch.Stats.MAXIMUM, namespace=METRIC_NAMESPACE)

    def metric(self, name: str, statistic: str, *, namespace: str = NAMESPACE) -> cloudwatch.Metric:
        dimensions = {"EndpointName": self.endpoint, "VariantName": self.variant}
        if self.config is not None:
            dimensions["EndpointConfigName"] = self.config
        return cloudwatch.Metric(
            namespace=namespace, metric_name=name, dimensions_map=dimensions, statistic=statistic, period=PERIOD
        )

    def _math(self, value: str, **metrics: cloudwatch.IMetric) -> cloudwatch.MathExpression:
        return cloudwatch.MathExpression(
            expression=f"IF(requests >= {self.min_requests}, {value}, 0)",
            using_metrics={"requests": self.requests(), **metrics},
            period=PERIOD,
        )
