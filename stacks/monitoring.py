"""How one model is watched: when its windows are compared, what pages people, its hours, and a dashboard to look at.

Of mode batch, the dashboard alone.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from aws_cdk import ArnFormat, Environment, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from noria.alarms import CAUSES, CauseName, Severity, Told
from noria.boards import of_model, of_monitor
from noria.monitors import Monitor, monitors
from noria.names import key
from noria.objectives import OF_REQUESTS
from noria.serve import Mode
from noria.spec import ModelSpec
from stacks.constructs.burn_alarms import BurnAlarms
from stacks.constructs.captured_requests import CapturedRequests
from stacks.constructs.dashboard import Dashboard, drawn
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
        self._endpoint = self._of_variant("champion")

        if settings.model_dashboards or not spec.serve.mode.has_endpoint:  # a batch model has nothing else here
            Dashboard(self, "Board", board=of_model(settings.names, spec))
        if not spec.serve.mode.has_endpoint:
            # Nothing is captured of transform jobs, so there is no window to compare.
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
        if hours := spec.serve.hours:
            for name, expression in zip(("On", "Off"), hours.crons, strict=True):
                reactions.clock.schedule(
                    self,
                    f"Hours{name}",
                    name=f"{self._name}-{name.lower()}",
                    expression=expression,
                    timezone=hours.timezone,
                    reaction=reactions.deploy_model,
                    detail_type="Keep Hours",
                    detail={"model": spec.model},
                )
        CapturedRequests(self, "CapturedRequests", settings=settings, spec=spec, foundation=foundation)
        alarms = {monitor: self._watch(monitor, settings=settings) for monitor in monitors(spec)}
        for monitor, alarm in alarms.items():
            if monitor.cause is None:
                alarm.add_alarm_action(tell(foundation, Severity.WARNING))
        for cause in sorted({monitor.cause for monitor in alarms if monitor.cause}):
            self._once(cause, [alarm for monitor, alarm in alarms.items() if monitor.cause == cause])
        burns = list(self._burn_alarms())
        for burn in burns:
            burn.slow.add_alarm_action(tell(foundation, Severity.WARNING))
        fast = [burn.fast for burn in burns]
        self._once("serving", [*self._endpoint_alarms(), *self._doors(front_door), *fast])

    def _of_variant(self, variant: str) -> EndpointMetrics:
        serve = self._spec.serve
        return EndpointMetrics(
            endpoint=self._name,
            variant=variant,
            min_requests=serve.min_requests,
            asynchronous=serve.mode is Mode.ASYNC,
        )

    def _burn_alarms(self) -> Iterator[BurnAlarms]:
        asked = self._spec.objectives
        for objective in OF_REQUESTS:
            if objective in asked.promised:
                yield BurnAlarms(
                    self,
                    f"Burn-{objective}",
                    objective=objective,
                    objectives=asked,
                    variants={variant: self._of_variant(variant) for variant in ("champion", "challenger")},
                )

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
            metric=drawn(of_monitor(spec, monitor)),
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


def _rate(every: timedelta) -> str:
    """An EventBridge Scheduler expression; the spec allows whole minutes, five at least."""
    return f"rate({every // timedelta(minutes=1)} minutes)"
