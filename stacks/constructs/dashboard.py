"""A board of noria.boards as a dashboard of CloudWatch."""

import math

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from noria.boards import Board, Line, Panel, Series

WIDTH = 24


class Dashboard(Construct):
    """The state of its alarms, where to read on, and its panels."""

    def __init__(self, scope: Construct, id_: str, *, board: Board) -> None:
        super().__init__(scope, id_)
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=board.name)
        dashboard.add_widgets(cloudwatch.TextWidget(markdown=_about(board), width=WIDTH, height=2))
        if board.alarms:
            listed = [self._alarm(name) for name in board.alarms]
            dashboard.add_widgets(
                cloudwatch.AlarmStatusWidget(
                    title="Alarms", alarms=listed, width=WIDTH, height=1 + math.ceil(len(listed) / 6)
                )
            )
        for row in board.rows:
            dashboard.add_widgets(cloudwatch.TextWidget(markdown=f"## {row.heading}", width=WIDTH, height=1))
            each = WIDTH // min(len(row.panels), 4)
            dashboard.add_widgets(*(_widget(panel, width=each) for panel in row.panels))

    def _alarm(self, name: str) -> cloudwatch.IAlarm:
        """By its name: other stacks have it, and an export could not go while this one imports it."""
        arn = Stack.of(self).format_arn(
            service="cloudwatch", resource="alarm", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        return cloudwatch.Alarm.from_alarm_arn(self, name, arn)


def _about(board: Board) -> str:
    asked = f"noria status {board.model or ''}".strip()
    return f"# {board.title}\n`{asked}` says what is live; each alarm names its page in docs/runbooks"


def _widget(panel: Panel, *, width: int) -> cloudwatch.GraphWidget:
    limits = (
        None
        if panel.limit is None
        else [cloudwatch.HorizontalAnnotation(value=panel.limit, label=f"alarms {panel.limited}")]
    )
    return cloudwatch.GraphWidget(
        title=panel.title,
        left=[_line(line, number) for number, line in enumerate(panel.lines)],
        left_annotations=limits,
        left_y_axis=cloudwatch.YAxisProps(label=panel.unit, show_units=False) if panel.unit else None,
        width=width,
    )


def _line(line: Line, number: int) -> cloudwatch.IMetric:
    found = drawn(line.series, line.legend)
    if line.of:
        return cloudwatch.MathExpression(
            expression=f"part{number} / whole{number}",
            using_metrics={f"part{number}": found, f"whole{number}": drawn(line.of, line.legend)},
            label=line.legend,
            period=Duration.seconds(line.series.period),
        )
    if line.series.factor != 1:
        return cloudwatch.MathExpression(
            # The CDK takes the e of 1e-06 for a metric's name.
            expression=f"value{number} * {line.series.factor:f}",
            using_metrics={f"value{number}": found},
            label=line.legend,
            period=Duration.seconds(line.series.period),
        )
    return found


def drawn(series: Series, label: str | None = None) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=series.namespace,
        metric_name=series.metric,
        dimensions_map=series.dimensions,
        statistic=series.statistic,
        period=Duration.seconds(series.period),
        label=label,
    )
