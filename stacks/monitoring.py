"""How one model is watched: when its windows are compared, what pages people, and a dashboard to look at.

Of mode batch, the dashboard alone.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from aws_cdk import ArnFormat, Duration, Environment, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from noria.alarms import CAUSES, CauseName, Severity, Told
from noria.monitors import Monitor, monitors
from noria.names import METRIC_NAMESPACE, dimension, key
from noria.serve import Mode
from noria.spec import ModelSpec
from stacks.constructs.captured_requests import CapturedRequests
from stacks.constructs.endpoint_metrics import EndpointMetrics
from stacks.constructs.paging import OnePage, tell
from stacks.foundation import Foundation
from stacks.front_door import FrontDoor
from stacks.reactions import Reactions
from stacks.settings import Settings


class Monitoring(Stack):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        spec: ModelSpec,
        foundation: Foundation,
        reactions: Reactions,
        front_door: FrontDoor | None = None,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.stack(spec.model, "monitoring"),
            description=f"Noria ({settings.env}): how {spec.model} is watched",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._spec = spec
        self._name = settings.names.model(spec.model)
        self._foundation = foundation
        self._endpoint = EndpointMetrics(
            endpoint=self._name,
            variant="champion",
            min_requests=spec.serve.min_requests,
            asynchronous=spec.serve.mode is Mode.ASYNC,
        )

        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=self._name)
        if not spec.serve.mode.has_endpoint:
            # Nothing is captured of transform jobs, so there is no window to compare.
            self._show_batches(dashboard)
            return
        reactions.clock.schedule(
            self,
            "Schedule",
            name=f"{self._name}-monitor",
            expression=_rate(spec.monitor.every),
            reaction=reactions.monitor_model,
            detail_type="Monitor Model",
            detail={"model": spec.model},
        )
        CapturedRequests(self, "CapturedRequests", settings=settings, spec=spec, foundation=foundation)
        alarms = {monitor: self._watch(monitor, settings=settings) for monitor in monitors(spec)}
        for monitor, alarm in alarms.items():
            if monitor.cause is None:
                alarm.add_alarm_action(tell(foundation, Severity.WARNING))
        for cause in sorted({monitor.cause for monitor in alarms if monitor.cause}):
            self._once(cause, [alarm for monitor, alarm in alarms.items() if monitor.cause == cause])
        self._once("serving", [*self._endpoint_alarms(), *self._doors(front_door)])
        self._show_endpoint(dashboard)
        self._show_window(dashboard)
        self._show_monitors(dashboard)

    def _once(self, cause: CauseName, alarms: Sequence[cloudwatch.IAlarm]) -> None:
        OnePage(self, f"Cause-{cause}", cause=cause, of=self._name, alarms=alarms, foundation=self._foundation)

    def _doors(self, front_door: FrontDoor | None) -> Iterator[cloudwatch.IAlarm]:
        """The alarms of the front door, by their names: an export could not go while this stack still imports it."""
        for name in front_door.alarm_names if front_door else ():
            arn = self.format_arn(
                service="cloudwatch", resource="alarm", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
            )
            yield cloudwatch.Alarm.from_alarm_arn(self, name, arn)

    def _watch(self, monitor: Monitor, *, settings: Settings) -> cloudwatch.Alarm:
        """The alarm of one monitor.

        A window that says nothing publishes nothing, and its alarm then has no data either: INSUFFICIENT_DATA is a
        state of its own, neither well nor alarmed. Labels come when they come: what the last of them said holds until
        others speak.
        """
        spec, of_window = self._spec, monitor.clock == "window"
        newest = f"s3://{self._foundation.data_bucket_name}/{key(spec.model, 'reports', 'latest.html')}"
        return cloudwatch.Alarm(
            self,
            f"Monitor-{monitor.name}",
            alarm_name=settings.names.monitor_alarm(spec.model, monitor.name),
            alarm_description=Told(severity=Severity.WARNING, runbook=monitor.runbook).describe(
                f"{spec.model}: {monitor.meaning}. Newest report: {newest}"
            ),
            metric=self._of(monitor),
            threshold=monitor.limit,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
            if monitor.breaches == "above"
            else cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=spec.monitor.when.of if of_window else 1,
            datapoints_to_alarm=spec.monitor.when.breaching if of_window else 1,
            treat_missing_data=cloudwatch.TreatMissingData.MISSING if of_window else cloudwatch.TreatMissingData.IGNORE,
        )

    def _endpoint_alarms(self) -> Iterator[cloudwatch.Alarm]:
        serve = self._spec.serve
        for what, meaning, metric, threshold in (
            ("errors", "answers with 5XX", self._endpoint.error_rate(), serve.error_rate),
            ("latency", "answers slowly", self._endpoint.latency_p95_ms(), serve.latency_p95_ms),
        ):
            yield cloudwatch.Alarm(
                self,
                f"Endpoint-{what}",
                alarm_name=f"{self._name}-endpoint-{what}",
                alarm_description=Told(severity=CAUSES["serving"].severity, runbook=f"endpoint-{what}").describe(
                    f"{self._name} {meaning}."
                ),
                metric=metric,
                threshold=threshold,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                # Longer than a rollback alarm: what a rollback mends within minutes pages nobody a second time.
                evaluation_periods=5,
                datapoints_to_alarm=3,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )

    def _show_endpoint(self, dashboard: cloudwatch.Dashboard) -> None:
        dashboard.add_widgets(
            cloudwatch.GraphWidget(title="Requests a minute", left=[self._endpoint.requests()], width=8),
            cloudwatch.GraphWidget(title="Share answered 5XX", left=[self._endpoint.error_rate()], width=8),
            cloudwatch.GraphWidget(title="Latency, p95 (ms)", left=[self._endpoint.latency_p95_ms()], width=8),
        )

    def _show_window(self, dashboard: cloudwatch.Dashboard) -> None:
        psi = self._spec.monitor.psi
        dashboard.add_widgets(
            cloudwatch.GraphWidget(
                title="Population stability index",
                left=[self._own("MaxPsi"), self._own("PredictionPsi")],
                left_annotations=[cloudwatch.HorizontalAnnotation(value=psi, label="may have drifted")],
                width=12,
            ),
            cloudwatch.GraphWidget(
                title="Rows of a window, and records that could not be read",
                left=[self._own("Rows")],
                right=[self._own("MalformedRecords")],
                width=12,
            ),
        )

    def _show_monitors(self, dashboard: cloudwatch.Dashboard) -> None:
        dashboard.add_widgets(
            *(
                cloudwatch.GraphWidget(
                    title=monitor.title,
                    left=[self._of(monitor)],
                    left_annotations=[
                        cloudwatch.HorizontalAnnotation(value=monitor.limit, label=f"alarms {monitor.breaches}")
                    ],
                    width=6,
                )
                for monitor in monitors(self._spec)
            )
        )

    def _show_batches(self, dashboard: cloudwatch.Dashboard) -> None:
        """What predict_batch says came of the uploaded files."""
        dashboard.add_widgets(
            cloudwatch.GraphWidget(
                title="Files begun and answered, an hour",
                left=[self._outcome("BatchStarted"), self._outcome("BatchPredicted")],
                width=12,
            ),
            cloudwatch.GraphWidget(
                title="Files refused or failed, an hour",
                left=[self._outcome("BatchRefused"), self._outcome("BatchFailed")],
                width=12,
            ),
        )

    def _outcome(self, name: str) -> cloudwatch.Metric:
        """A count by `noria.aws.telemetry.tell`; the dimension `service` is Powertools' own."""
        return cloudwatch.Metric(
            namespace=METRIC_NAMESPACE,
            metric_name=name,
            dimensions_map={"Model": self._spec.model, "service": "noria"},
            statistic=cloudwatch.Stats.SUM,
            period=Duration.hours(1),
        )

    def _of(self, monitor: Monitor) -> cloudwatch.Metric:
        """The worst that was measured in a window's time, as when a person asked for one of their own besides."""
        worst = cloudwatch.Stats.MAXIMUM if monitor.breaches == "above" else cloudwatch.Stats.MINIMUM
        return self._own(monitor.metric, segment=monitor.segment, statistic=worst)

    def _own(
        self, name: str, *, segment: str | None = None, statistic: str = cloudwatch.Stats.MAXIMUM
    ) -> cloudwatch.Metric:
        of_segment = {"Segment": dimension(segment)} if segment else {}
        return cloudwatch.Metric(
            namespace=METRIC_NAMESPACE,
            metric_name=name,
            dimensions_map={"Model": self._spec.model, **of_segment},
            statistic=statistic,
            period=Duration.seconds(self._spec.monitor.every.total_seconds()),
        )


def _rate(every: timedelta) -> str:
    """An EventBridge Scheduler expression; the spec allows whole minutes, five at least."""
    return f"rate({every // timedelta(minutes=1)} minutes)"
