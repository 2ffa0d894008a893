"""Alarms on how fast the budget of an objective goes (noria/objectives.py): AND of a long and a short window."""

from collections.abc import Mapping
from datetime import timedelta

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from noria.alarms import Severity, Told
from noria.objectives import BURNS, Burn, Objective, Objectives, within
from noria.units import format_duration
from stacks.constructs.endpoint_metrics import EndpointMetrics

_MEANING: Mapping[Objective, str] = {"availability": "answers with 5XX", "latency_p95_ms": "answers too late"}
_SEVERITY: Mapping[str, Severity] = {"fast": Severity.CRITICAL, "slow": Severity.WARNING}


class BurnAlarms(Construct):
    """`<endpoint>-<objective>-<fast or slow>` for one objective of requests; who hears them is said elsewhere.

    `variants` are those that clients are answered by; each adds up to the others, and counts nothing where it is not.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        objective: Objective,
        objectives: Objectives,
        variants: Mapping[str, EndpointMetrics],
    ) -> None:
        super().__init__(scope, id_)
        self._objective, self._objectives, self._variants = objective, objectives, variants
        (self._endpoint,) = {metrics.endpoint for metrics in variants.values()}
        self.fast, self.slow = (self._alarm(burn) for burn in BURNS)

    def _alarm(self, burn: Burn) -> cloudwatch.CompositeAlarm:
        name = f"{self._endpoint}-{self._objective.partition('_')[0]}-{burn.name}"
        told = Told(severity=_SEVERITY[burn.name], runbook="error-budget")
        windows = [self._window(name, burn, long) for long in (burn.long, burn.short)]
        return cloudwatch.CompositeAlarm(
            self,
            burn.name,
            composite_alarm_name=name,
            alarm_description=told.describe(
                f"{self._endpoint} {_MEANING[self._objective]}: what may go wrong in {self._objectives.days} days goes "
                f"{burn.rate:g} times too fast ({self._objectives.text(self._objective)})."
            ),
            alarm_rule=cloudwatch.AlarmRule.all_of(
                *(cloudwatch.AlarmRule.from_alarm(window, cloudwatch.AlarmState.ALARM) for window in windows)
            ),
        )

    # Of a window alone nobody is told.
    def _window(self, name: str, burn: Burn, long: timedelta) -> cloudwatch.Alarm:
        return cloudwatch.Alarm(
            self,
            f"{burn.name}-{format_duration(long)}",
            alarm_name=f"{name}-{format_duration(long)}",
            alarm_description=Told(severity=None, runbook="error-budget").describe(
                f"A part of {name}: the last {format_duration(long)}."
            ),
            metric=self._bad_share(Duration.seconds(int(long.total_seconds()))),
            threshold=round(burn.rate * (1 - self._objectives.target(self._objective)), 6),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )

    def _bad_share(self, period: Duration) -> cloudwatch.MathExpression:
        """Share of the requests of one period that was bad, between 0 and 1; 0 of too few to tell."""
        metrics: dict[str, cloudwatch.IMetric] = {}
        for variant, of in self._variants.items():
            metrics[f"all_{variant}"] = self._counted(of).with_(period=period)
            metrics[f"some_{variant}"] = self._told_of(of).with_(period=period)
        total, some = (
            " + ".join(f"FILL({kind}_{variant}, 0)" for variant in self._variants) for kind in ("all", "some")
        )
        bad = f"({some})" if self._objective == "availability" else f"({total} - ({some}))"
        fewest = max(of.min_requests for of in self._variants.values())
        return cloudwatch.MathExpression(
            expression=f"IF(({total}) >= {fewest}, {bad} / ({total}), 0)", using_metrics=metrics, period=period
        )

    def _counted(self, of: EndpointMetrics) -> cloudwatch.Metric:
        if self._objective == "availability":
            return of.requests()
        return of.metric("ModelLatency", cloudwatch.Stats.SAMPLE_COUNT)

    def _told_of(self, of: EndpointMetrics) -> cloudwatch.Metric:
        """Those that failed; of latency, those that were in time: a count that adds up, as no percentile does."""
        if self._objective == "availability":
            return of.metric("Invocation5XXErrors", cloudwatch.Stats.SUM)
        return of.metric("ModelLatency", within(self._objectives.latency_p95_ms or 0))
