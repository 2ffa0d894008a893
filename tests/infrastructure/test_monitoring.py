"""The monitoring stack: when windows are compared, when that is an alarm, and what a person sees."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.assertions import Template as CdkTemplate

from lambdas.predict_batch import handler as predict_batch
from lambdas.record_training import handler as record_training
from lambdas.start_training import handler as start_training
from lambdas.validate_upload import handler as validate_upload
from noria.boards import of_environment
from noria.monitors import monitors
from noria.names import METRIC_NAMESPACE, Names
from noria.serve import Mode
from noria.spec import ModelSpec, load_all
from stacks.constructs.dashboard import Dashboard
from tests.infrastructure.assembly import Assembly, Resource, Template
from tests.infrastructure.test_alarms import OF_AWS, published


@pytest.fixture
def stack(assembly: Assembly, name: str) -> Template:
    return assembly[f"{name}-monitoring"]


@pytest.fixture
def drift(stack: Template, name: str) -> Resource:
    return stack.one("AWS::CloudWatch::Alarm", AlarmName=f"{name}-drift")


def test_each_window_is_asked_for_when_it_ends(assembly: Assembly, stack: Template, spec: ModelSpec) -> None:
    schedule = stack.one("AWS::Scheduler::Schedule", Name=f"noria-{assembly.env}-{spec.model}-monitor")
    minutes = int(spec.monitor.every.total_seconds()) // 60
    assert schedule.properties["ScheduleExpression"] == f"rate({minutes} minutes)"
    queue = assembly.target(stack, schedule.properties["Target"]["Arn"])
    assert queue.properties["QueueName"] == f"noria-{assembly.env}-monitor-model"
    sent = json.loads(schedule.properties["Target"]["Input"])
    assert (sent["detail-type"], sent["detail"]["model"]) == ("Monitor Model", spec.model)


def test_drift_is_an_alarm_in_as_many_windows_as_the_spec_says(drift: Resource, spec: ModelSpec) -> None:
    assert drift.properties["DatapointsToAlarm"] == spec.monitor.when.breaching
    assert drift.properties["EvaluationPeriods"] == spec.monitor.when.of
    # One period for one window: a measurement carries its window's end.
    assert drift.properties["Period"] == spec.monitor.every.total_seconds()
    # CloudWatch looks at no more than a week, at no more than a day if periods are shorter than an hour.
    looked_at = drift.properties["Period"] * drift.properties["EvaluationPeriods"]
    assert looked_at <= (7 if drift.properties["Period"] >= 3600 else 1) * 86400


def test_one_drifted_feature_is_drift(drift: Resource) -> None:
    assert drift.properties["MetricName"] == "DriftedFeatures"
    assert (drift.properties["ComparisonOperator"], drift.properties["Threshold"]) == (
        "GreaterThanThreshold",
        0,
    )


def test_what_is_live_pages_later_than_a_deployment_goes_back(assembly: Assembly, stack: Template, name: str) -> None:
    """Else the same bad canary would page although it was taken back already."""
    serving = {a.properties["AlarmName"]: a for a in assembly[f"{name}-serving"].of("AWS::CloudWatch::Alarm")}
    for what in ("errors", "latency"):
        live = stack.one("AWS::CloudWatch::Alarm", AlarmName=f"{name}-endpoint-{what}")
        gate = serving[f"{name}-rollback-{what}"]
        assert live.properties["Threshold"] == gate.properties["Threshold"]
        assert live.properties["DatapointsToAlarm"] > gate.properties["EvaluationPeriods"]


BOARDS = ("reactions", "flight-delay-monitoring", "house-prices-monitoring")


def board(assembly: Assembly, stack: str) -> tuple[str, list[dict[str, Any]]]:
    """Name and widgets of a stack's dashboard."""
    dashboard = assembly[f"noria-{assembly.env}-{stack}"].one("AWS::CloudWatch::Dashboard")
    body = json.loads(assembly.flat(dashboard.properties["DashboardBody"]))
    return dashboard.properties["DashboardName"], body["widgets"]


def shown(widgets: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Namespace, name and dimensions of each metric; CloudWatch writes `.` for what is as in the line before."""
    for widget in widgets:
        before: list[str] = []
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], dict):  # an expression
                continue
            said = [part for part in metric if isinstance(part, str)]
            before = [old if part == "." else part for part, old in zip(said, before or said, strict=False)]
            assert len(before) == len(said)
            yield before[0], before[1], dict(zip(before[2::2], before[3::2], strict=True))


OUTCOMES = {
    outcome.value
    for handler in (predict_batch, record_training, start_training, validate_upload)
    for outcome in handler.Outcome
}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_shows_what_is_published(assembly: Assembly, models: Path, name: str) -> None:
    queues = {queue.properties["QueueName"] for queue in assembly.all("AWS::SQS::Queue")}
    functions = {function.properties["FunctionName"] for function in assembly.all("AWS::Lambda::Function")}
    endpoints = {endpoint.properties["EndpointName"] for endpoint in assembly.all("AWS::SageMaker::Endpoint")}
    specs = {spec.model: spec for spec in load_all(models)}
    _, widgets = board(assembly, name)
    found = list(shown(widgets))
    assert found
    for namespace, metric, dimensions in found:
        if namespace == METRIC_NAMESPACE and "service" in dimensions:
            assert metric in OUTCOMES
            assert (set(dimensions), dimensions["service"]) == ({"Model", "service"}, "noria")
        elif namespace == METRIC_NAMESPACE:
            assert (metric, frozenset(dimensions)) in published(specs[dimensions["Model"]]), metric
        elif namespace == "AWS/SQS":
            assert metric in OF_AWS[namespace] | {"ApproximateAgeOfOldestMessage"}
            assert dimensions["QueueName"] in queues
        elif namespace == "AWS/Lambda":
            assert metric == "Errors"
            assert dimensions["FunctionName"] in functions
        else:
            assert metric in OF_AWS[namespace]
            assert dimensions["EndpointName"] in endpoints
            assert dimensions["VariantName"] in {"champion", "challenger", "shadow"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_shows_the_state_of_alarms_that_there_are(assembly: Assembly, name: str) -> None:
    _, widgets = board(assembly, name)
    (states,) = (widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm")
    kinds = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
    known = {alarm.properties["AlarmName"] for kind in kinds for alarm in assembly.all(kind)}
    assert states
    assert {arn.rsplit(":", 1)[-1] for arn in states} <= known


@pytest.mark.parametrize("modes", [[], ["batch"], ["batch", "realtime"]])
def test_every_graph_of_an_environment_has_a_metric_whatever_models_there_are(models: Path, modes: list[str]) -> None:
    """CloudWatch refuses a dashboard with a graph of none: "Should have required property 'metrics'"."""
    shipped = load_all(models)[0]
    specs = [
        shipped.model_copy(update={"model": mode, "serve": shipped.serve.model_copy(update={"mode": Mode(mode)})})
        for mode in modes
    ]
    stack = Stack(App(), "stack")
    Dashboard(stack, "Board", board=of_environment(Names(env="dev"), specs, ["validate-upload"]))
    (resource,) = CdkTemplate.from_stack(stack).find_resources("AWS::CloudWatch::Dashboard").values()
    written = resource["Properties"]["DashboardBody"]["Fn::Join"][1]
    widgets = json.loads("".join(part if isinstance(part, str) else "x" for part in written))["widgets"]
    graphs = [widget for widget in widgets if widget["type"] == "metric"]
    assert graphs
    assert all(graph["properties"]["metrics"] for graph in graphs)
    headings = [n for n, w in enumerate(widgets) if w["properties"].get("markdown", "").startswith("## ")]
    assert all(widgets[n + 1]["type"] == "metric" for n in headings)


def test_dashboards_of_an_environment_and_two_models_are_those_that_cloudwatch_gives_away(assembly: Assembly) -> None:
    """Three, each with up to 50 metrics. Source: CloudWatch's pricing."""
    assert len(assembly.all("AWS::CloudWatch::Dashboard")) == 3
    for stack in BOARDS:
        _, widgets = board(assembly, stack)
        distinct = {(namespace, metric, tuple(of.items())) for namespace, metric, of in shown(widgets)}
        assert len(distinct) <= 50, stack


def test_the_dashboard_of_a_model_shows_each_monitor_with_its_limit(
    assembly: Assembly, spec: ModelSpec, name: str
) -> None:
    called, widgets = board(assembly, f"{spec.model}-monitoring")
    assert called == name
    lines = {
        (widget["properties"]["title"], line["value"])
        for widget in widgets
        for line in widget["properties"].get("annotations", {}).get("horizontal", [])
    }
    seconds = {"hours": 3600}
    assert lines >= {(monitor.title, monitor.limit * seconds.get(monitor.unit, 1)) for monitor in monitors(spec)}
    assert ("Share answered 5XX", spec.serve.error_rate) in lines


def test_captured_requests_are_a_table_of_projected_hours(
    assembly: Assembly, stack: Template, spec: ModelSpec, name: str
) -> None:
    table = stack.one("AWS::Glue::Table").properties
    database = assembly[f"noria-{assembly.env}-foundation"].one("AWS::Glue::Database")
    assert table["DatabaseName"] == database.properties["DatabaseInput"]["Name"] == f"noria_{assembly.env}"
    of = table["TableInput"]
    assert [key["Name"] for key in of["PartitionKeys"]] == ["variant", "hour"]
    captured = f"/{spec.model}/captured/{name}/"
    assert json.dumps(of["StorageDescriptor"]["Location"]).find(captured) > 0
    assert json.dumps(of["Parameters"]["storage.location.template"]).find(f"{captured}${{variant}}/${{hour}}/") > 0
    days = {"local": 90, "prod": 365}[assembly.env]  # as long as the files are kept
    assert of["Parameters"]["projection.hour.range"] == f"NOW-{days}DAYS,NOW"


def test_queries_leave_their_results_where_the_workgroup_says_encrypted(
    assembly: Assembly, stack: Template, spec: ModelSpec, name: str
) -> None:
    workgroup = stack.one("AWS::Athena::WorkGroup", Name=name)
    configured = workgroup.properties["WorkGroupConfiguration"]
    assert configured["EnforceWorkGroupConfiguration"] is True
    result = configured["ResultConfiguration"]
    assert json.dumps(result["OutputLocation"]).find(f"/{spec.model}/queries/") > 0
    encryption = result["EncryptionConfiguration"]
    assert encryption["EncryptionOption"] == "SSE_KMS"
    assert assembly.target(stack, encryption["KmsKey"]).type == "AWS::KMS::Key"
