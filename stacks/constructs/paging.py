"""Who hears an alarm: by its severity, and once for each cause.

child ─┐
child ─┼─> composite ──> pages (critical) or notices (warning)
child ─┘
"""

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as cloudwatch_actions
from constructs import Construct

from noria.alarms import CAUSES, CauseName, Severity, Told
from stacks.foundation import Foundation

MOST = 80
"""Alarms of a rule: its 10,240 characters are full of their ARNs before the 100 alarms are reached that it may have.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
"""


def tell(foundation: Foundation, severity: Severity) -> cloudwatch.IAlarmAction:
    """What sends an alarm to the topic of its severity."""
    return cloudwatch_actions.SnsAction(foundation.pages if severity is Severity.CRITICAL else foundation.notices)


class OnePage(Construct):
    """The composite alarm of one cause: `<of>-<cause>`, raised while any of `alarms` is; these tell nobody themselves.

    One alarm needs no other to speak for it, and none costs what five others do. Raises ValueError for more than
    `MOST` alarms.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        cause: CauseName,
        of: str,
        alarms: Sequence[cloudwatch.IAlarm],
        foundation: Foundation,
    ) -> None:
        super().__init__(scope, id_)
        if len(alarms) > MOST:
            raise ValueError(
                f"{of}-{cause} would speak for {len(alarms)} alarms, and a composite alarm has room for {MOST}: "
                "watch fewer segments or metrics in the model's YAML"
            )
        self.alarms = alarms
        told = CAUSES[cause]
        action = tell(foundation, told.severity)
        match alarms:
            case [cloudwatch.Alarm() as alone]:
                alone.add_alarm_action(action)
            case _:
                cloudwatch.CompositeAlarm(
                    self,
                    "Alarm",
                    composite_alarm_name=f"{of}-{cause}",
                    alarm_description=Told(severity=told.severity, runbook=cause).describe(f"{of}: {told.meaning}."),
                    alarm_rule=cloudwatch.AlarmRule.any_of(
                        *(cloudwatch.AlarmRule.from_alarm(alarm, cloudwatch.AlarmState.ALARM) for alarm in alarms)
                    ),
                ).add_alarm_action(action)
