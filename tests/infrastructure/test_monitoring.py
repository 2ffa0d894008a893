"""The monitoring stack: when windows are compared, when that is an alarm, and what a person sees."""

import json

import pytest

from noria.monitors import monitors
from noria.names import METRIC_NAMESPACE
from noria.spec import ModelSpec
from tests.infrastructure.assembly import Assembly, Resource, Template
from tests.infrastructure.test_alarms import OF_AWS, published


@pytest.fixture
def stack(assembly: Assembly, name: str) -> Template:
    return assembly[f"{name}-monitoring"]


@pytest.fixture
def drift(stack: Template, name: str) -> Resource:
    return stack.one("AWS::CloudWatch::Alarm", AlarmName=f"{name}-drift")


def test_each_window_is_asked_for_when_it_ends(assembly: Assembly, stack: Template, spec: ModelSpec) -> None:
    schedule = stack.one("AWS::Scheduler::Schedule")
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


def test_a_dashboard_shows_what_is_published_of_this_model(
    assembly: Assembly, stack: Template, spec: ModelSpec, name: str
) -> None:
    dashboard = stack.one("AWS::CloudWatch::Dashboard")
    assert dashboard.properties["DashboardName"] == name
    widgets = json.loads(assembly.flat(dashboard.properties["DashboardBody"]))["widgets"]
    shown = [
        metric for widget in widgets for metric in widget["properties"]["metrics"] if not isinstance(metric[0], dict)
    ]
    assert shown
    for namespace, metric, *rest in shown:
        pairs = [part for part in rest if isinstance(part, str)]
        dimensions = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if namespace == METRIC_NAMESPACE:
            assert (metric, frozenset(dimensions)) in published(spec), metric
            assert dimensions["Model"] == spec.model
        else:
            assert metric in OF_AWS[namespace]
            assert dimensions == {"EndpointName": name, "VariantName": "champion"}


def test_the_dashboard_shows_the_limit_of_the_spec(assembly: Assembly, stack: Template, spec: ModelSpec) -> None:
    body = json.loads(assembly.flat(stack.one("AWS::CloudWatch::Dashboard").properties["DashboardBody"]))
    limits = [
        line["value"]
        for widget in body["widgets"]
        for line in widget["properties"].get("annotations", {}).get("horizontal", [])
    ]
    assert set(limits) >= {spec.monitor.psi, *(monitor.limit for monitor in monitors(spec))}


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
