"""Alarms: each looks at something that is published, reaches a person, and tells them what to do."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import typer.core
import typer.main
from botocore import xform_name

from lambdas.join_labels import handler as join_labels
from lambdas.probe_deployment import handler as probe_deployment
from noria import drift, profile
from noria.alarms import CAUSES, Severity, Told
from noria.aws.runs import measured
from noria.cli.commands import app
from noria.contract import Live
from noria.evaluation import Calibration, Estimate, Fairness, Rates
from noria.explain import WindowAttribution
from noria.labels import Coverage
from noria.monitoring import Evidence, Run, Window
from noria.monitors import Unknown, monitors
from noria.names import METRIC_NAMESPACE, OUTSIDE_HOURS
from noria.quality import Quality, QualityLoss, Score, reading
from noria.spec import Metric, ModelSpec, load_all
from tests.infrastructure.assembly import REPOSITORY, Assembly, Resource, Template
from tests.infrastructure.deployed import Deployed

RUNBOOKS = REPOSITORY / "docs" / "runbooks"

OF_AWS = {
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible"},
    "AWS/SageMaker": {"Invocations", "Invocation5XXErrors", "ModelLatency", "HasBacklogWithoutCapacity"},
    "AWS/ApiGateway": {"Count", "5xx", "Latency"},
}
"""What AWS publishes. Source: SQS guide, `sqs-available-cloudwatch-metrics`; SageMaker's, `monitoring-cloudwatch` and
`async-inference-monitor`; API Gateway's, `http-api-metrics`."""

OF_A_FLEET = frozenset({"EndpointName", "EndpointConfigName", "VariantName"})

BURNS = re.compile(r"-((?:availability|latency)-(?:fast|slow))(?:-\d+[hm])?$")
"""What the names of alarms on budgets, and of their windows, end with: they count all that clients are answered by."""

WINDOWS = re.compile(BURNS.pattern.replace("?$", "$"))
"""Those of windows alone."""

WINDOW = profile.column([1.0, 2.0], "number")


def run(spec: ModelSpec, *, enough: bool) -> Run:
    """Of a window in which everything is known, or of one in which nothing is."""
    lacking = Unknown(reason="there is none")
    estimate = Estimate(value=0.5, low=0.4, high=0.6)
    found = profile.Profile(
        model=spec.model,
        rows=1000 if enough else 1,
        features=dict.fromkeys(spec.features, WINDOW),
        prediction=WINDOW,
        confidence=WINDOW,
        outliers=0,
        segments={
            name: {v: profile.SegmentCount(rows=500, selected=100) for v in ("a", "b")} for name in spec.segments
        },
    )
    fair = Fairness(
        values={v: Rates(rows=99, selected=9, positives=50, true_positives=5) for v in "ab"},
        disparate_impact=estimate,
        equal_opportunity=estimate,
        equalized_odds=estimate,
    )
    quality = Quality(
        model=spec.model,
        predictions=9,
        labels=9,
        matched=1000,
        unmatched_labels=0,
        malformed=0,
        coverage=1,
        overall=Score(rows=1000, requests=1000, metrics=dict.fromkeys(Metric, estimate)),
        segments={},
        calibration=Calibration(rows=1000, error=0.1, chance=0, value=0.1, bins=()),
        fairness=dict.fromkeys(spec.segments, fair),
        registration=QualityLoss.of(spec.primary_metric, estimate, estimate),
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    evidence = Evidence(
        spec=spec,
        report=drift.compare(found, found, spec),
        baseline=found,
        window=found,
        few=None if enough else "too few",
        live=Live(model=spec.model, rows=9, malformed=0, invalid=1, violations=()) if enough else lacking,
        attribution=WindowAttribution(rows=9, features={}, correlation=1, spearman=1, ndcg=1) if enough else lacking,
        quality=quality if enough else lacking,
        labels=Coverage(since=at, until=at, predictions=1000 if enough else 0, labelled=0),
        silent=timedelta() if enough else lacking,
        business=dict.fromkeys(spec.monitor.business, 1.0 if enough else lacking),
    )
    return Run.of(evidence, package="p", window=Window(start=at, end=at), at=at, own_rows=found.rows)


def published(spec: ModelSpec) -> set[tuple[str, frozenset[str]]]:
    """Name and dimensions of what the functions measure, as they measure it."""
    found = run(spec, enough=True)
    assert found.quality is not None
    of_labels = {m.name: reading(m, found.quality, spec) for m in monitors(spec) if m.clock == "labels"}
    said = [*measured(found), *join_labels.measure(found.quality, of_labels, spec)]
    of_models = {(m.name, frozenset(d["Name"] for d in m.dimensions(spec.model))) for m in said}
    proof = probe_deployment.Proof(golden=9, mistakes=(), compared=9, shift=0.1, why=())
    of_door = (
        {(OUTSIDE_HOURS, frozenset({"Model", "service"}))} if spec.serve.front_door and spec.serve.hours else set()
    )
    return of_models | of_door | {(m.name, OF_A_FLEET) for m in proof.measured}


def alarms(assembly: Assembly) -> Iterator[tuple[Template, Resource]]:
    for template in assembly.templates.values():
        for alarm in template.of("AWS::CloudWatch::Alarm"):
            yield template, alarm


def metrics(alarm: Resource) -> Iterator[dict[str, Any]]:
    """The metrics an alarm looks at, those of its expressions too, as Namespace, MetricName and Dimensions."""
    if "MetricName" in alarm.properties:
        yield alarm.properties
    for part in alarm.properties.get("Metrics", []):
        if "MetricStat" in part:
            yield part["MetricStat"]["Metric"]


def composites(assembly: Assembly) -> Iterator[tuple[Template, Resource]]:
    for template in assembly.templates.values():
        for alarm in template.of("AWS::CloudWatch::CompositeAlarm"):
            yield template, alarm


def children(assembly: Assembly, template: Template, composite: Resource) -> list[str]:
    """Names of the alarms whose ALARM, of any or of all, raises a composite one; fails if its rule is another."""
    rule = assembly.flat(composite.properties["AlarmRule"])
    one = r'ALARM\("(?:<(\w+)\.Arn>|arn:[^"]*:alarm:([\w-]+))"\)'
    assert any(re.fullmatch(rf"\(?{one}(?: {word} {one})*\)?", rule) for word in ("OR", "AND")), rule
    return [template[id_].properties["AlarmName"] if id_ else name for id_, name in re.findall(one, rule)]


def gates(assembly: Assembly) -> set[str]:
    """Names of the alarms that SageMaker looks at during a deployment."""
    champion = "arn:aws:sagemaker:us-east-1:123456789012:model-package/any/1"
    found = set()
    for name, template in assembly.templates.items():
        if name.endswith("-serving"):
            deployed = Deployed(template, ModelPackageArn=champion)
            for endpoint in deployed.of("AWS::SageMaker::Endpoint"):  # of mode batch there is none
                # A serverless endpoint moves at once, and nothing watches how.
                guarded = deployed.decided(endpoint.properties).get("DeploymentConfig", {})
                watched = guarded.get("AutoRollbackConfiguration", {}).get("Alarms", [])
                found |= {template.target(alarm["AlarmName"]).properties["AlarmName"] for alarm in watched}
    return found


def of_challengers(assembly: Assembly) -> set[str]:
    """Names of the alarms that deploy_model reacts to."""
    found = re.compile(r"noria-[a-z]+-.+-challenger-[a-z]+")
    return {name for _, a in alarms(assembly) if found.fullmatch(name := a.properties["AlarmName"])}


def test_every_alarm_says_what_silence_means(assembly: Assembly) -> None:
    for _, alarm in alarms(assembly):
        assert alarm.properties.get("TreatMissingData"), alarm.path


def actions(assembly: Assembly, template: Template, alarm: Resource) -> list[tuple[str, str]]:
    """What an alarm does: types and names."""
    done = [assembly.target(template, action) for action in alarm.properties.get("AlarmActions", [])]
    return [(a.type, a.properties.get("TopicName") or a.properties["PolicyName"]) for a in done]


def test_every_alarm_tells_somebody_by_its_severity_or_is_a_child_of_one_that_does_or_acts(
    assembly: Assembly,
) -> None:
    """What speaks against a new version is acted on by SageMaker or deploy_model, and confirm_deployment pages."""
    told, acting = set(), set()
    covered = [name for t, c in composites(assembly) for name in children(assembly, t, c)]
    assert len(covered) == len(set(covered)), "one alarm is told of by two"
    for template, alarm in (*alarms(assembly), *composites(assembly)):
        name, does = alarm.properties["AlarmName"], actions(assembly, template, alarm)
        if not does:
            continue
        if name.endswith("-scale-from-zero"):
            assert [kind for kind, _ in does] == ["AWS::ApplicationAutoScaling::ScalingPolicy"], alarm.path
            acting.add(name)
            continue
        severity = said(assembly, alarm).severity
        assert severity, alarm.path
        topic = {Severity.CRITICAL: "pages", Severity.WARNING: "notices"}[severity]
        assert does == [("AWS::SNS::Topic", f"noria-{assembly.env}-{topic}")], alarm.path
        told.add(name)
    assert not told & set(covered), "these are told of twice"
    known = {alarm.properties["AlarmName"] for _, alarm in (*alarms(assembly), *composites(assembly))}
    assert known - told - set(covered) - acting == gates(assembly) | of_challengers(assembly)
    assert gates(assembly)
    assert of_challengers(assembly)


def test_children_are_as_severe_as_what_speaks_for_them(assembly: Assembly) -> None:
    by_name = {alarm.properties["AlarmName"]: alarm for _, alarm in (*alarms(assembly), *composites(assembly))}
    for template, composite in composites(assembly):
        names = children(assembly, template, composite)
        assert len(names) >= 2, f"{composite.path}: one alarm can speak for itself"
        for name in names:
            # Of a window of a budget alone, nobody is to be told.
            expected = None if WINDOWS.search(name) else said(assembly, composite).severity
            assert said(assembly, by_name[name]).severity == expected, name


def test_one_cause_is_told_of_once(assembly: Assembly) -> None:
    prefix = f"noria-{assembly.env}"
    found = {c.properties["AlarmName"]: set(children(assembly, t, c)) for t, c in composites(assembly)}
    # An endpoint that fails is slow, too, and so is the door before it.
    door = f"{prefix}-house-prices-front-door"
    of_prices = {f"{prefix}-house-prices-endpoint-{what}" for what in ("errors", "latency")}
    assert found[f"{prefix}-house-prices-serving"] == of_prices | {f"{door}-errors", f"{door}-latency"}
    assert found[f"{prefix}-flight-delay-data"] == {
        f"{prefix}-flight-delay-{name}"
        for name in ("drift", "prediction-drift", "invalid", "outliers", "confidence", "attribution")
    }
    assert found[f"{prefix}-flight-delay-labels"] == {f"{prefix}-flight-delay-{n}" for n in ("quality", "calibration")}
    assert len(found[f"{prefix}-flight-delay-bias"]) == 3
    # Of the regression's labels one monitor speaks, for itself.
    assert f"{prefix}-house-prices-labels" not in found


def test_a_budget_is_watched_in_two_windows_of_what_all_clients_are_answered(assembly: Assembly) -> None:
    """Thresholds by hand, of the 0.1 % of requests that may fail: 14.4 and 6 times as many."""
    name = f"noria-{assembly.env}-flight-delay-availability"
    found = {alarm.properties["AlarmName"]: alarm.properties for _, alarm in alarms(assembly)}
    windows = {
        "fast-1h": (3600, 0.0144),
        "fast-5m": (300, 0.0144),
        "slow-6h": (21600, 0.006),
        "slow-30m": (1800, 0.006),
    }
    for window, (seconds, threshold) in windows.items():
        alarm = found[f"{name}-{window}"]
        assert alarm["Threshold"] == pytest.approx(threshold)
        assert {m["MetricStat"]["Period"] for m in alarm["Metrics"] if "MetricStat" in m} == {seconds}
    rules = {c.properties["AlarmName"]: assembly.flat(c.properties["AlarmRule"]) for _, c in composites(assembly)}
    asked = {c.properties["AlarmName"]: set(children(assembly, t, c)) for t, c in composites(assembly)}
    for burn in ("fast", "slow"):
        assert asked[f"{name}-{burn}"] == {f"{name}-{window}" for window in windows if window.startswith(burn)}
        assert " AND " in rules[f"{name}-{burn}"]
    assert f"{name}-fast" in asked[f"noria-{assembly.env}-flight-delay-serving"]
    # What promises nothing is not watched for it.
    assert not any(BURNS.search(other) and "house-prices" in other for other in found)


def test_every_alarm_has_a_name_of_its_own(assembly: Assembly) -> None:
    names = [alarm.properties["AlarmName"] for _, alarm in (*alarms(assembly), *composites(assembly))]
    assert len(names) == len(set(names))
    assert all(name.startswith(f"noria-{assembly.env}-") for name in names)


def test_every_alarm_looks_at_a_metric_that_something_publishes(assembly: Assembly, models: Path) -> None:
    ours = {metric for spec in load_all(models) for metric in published(spec)}
    for template, alarm in alarms(assembly):
        watched = list(metrics(alarm))
        assert watched, alarm.path
        for metric in watched:
            dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
            if metric["Namespace"] == METRIC_NAMESPACE:
                assert (metric["MetricName"], frozenset(dimensions)) in ours, alarm.path
                continue
            assert metric["MetricName"] in OF_AWS[metric["Namespace"]], alarm.path
            if metric["Namespace"] == "AWS/SQS":
                assert template.target(dimensions["QueueName"]).type == "AWS::SQS::Queue", alarm.path
            elif metric["Namespace"] == "AWS/ApiGateway":
                assert template.target(dimensions["ApiId"]).type == "AWS::ApiGatewayV2::Api", alarm.path
            else:
                assert assembly.one("AWS::SageMaker::Endpoint", EndpointName=dimensions["EndpointName"]), alarm.path
                if metric["MetricName"] == "HasBacklogWithoutCapacity":  # of an endpoint, not of a variant
                    continue
                of_challenger = alarm.properties["AlarmName"] in of_challengers(assembly)
                expected = {"champion", "challenger"} if BURNS.search(alarm.properties["AlarmName"]) else {"champion"}
                assert dimensions["VariantName"] in ({"challenger"} if of_challenger else expected), alarm.path


def test_a_model_is_named_as_its_measurements_name_it(assembly: Assembly) -> None:
    models = {"flight-delay", "house-prices"}
    found = {
        d["Value"]
        for _, alarm in alarms(assembly)
        for metric in metrics(alarm)
        if metric["Namespace"] == METRIC_NAMESPACE
        for d in metric["Dimensions"]
        if d["Name"] == "Model"
    }
    assert found == models


def test_a_window_of_which_nothing_is_known_publishes_nothing_that_an_alarm_looks_at(spec: ModelSpec) -> None:
    """But that monitors did not fail."""
    said = {measurement.name for measurement in measured(run(spec, enough=False))}
    assert said & {monitor.metric for monitor in monitors(spec)} == {"MonitorFailures"}


def test_every_monitor_has_an_alarm_that_is_raised_where_its_finding_is_a_breach(
    assembly: Assembly, spec: ModelSpec, name: str
) -> None:
    found = {alarm.properties["AlarmName"]: alarm.properties for _, alarm in alarms(assembly)}
    for monitor in monitors(spec):
        alarm = found[f"{name}-{monitor.name}"]
        side = {"above": "GreaterThanThreshold", "below": "LessThanThreshold"}[monitor.breaches]
        assert (alarm["MetricName"], alarm["Threshold"], alarm["ComparisonOperator"]) == (
            monitor.metric,
            monitor.limit,
            side,
        )
        # The worst value of a period is looked at.
        assert alarm["Statistic"] == {"above": "Maximum", "below": "Minimum"}[monitor.breaches]
        assert {d["Name"]: d["Value"] for d in alarm["Dimensions"]} == {"Model": spec.model} | (
            {"Segment": monitor.segment} if monitor.segment else {}
        )


def test_a_window_without_data_is_no_verdict_and_labels_hold_until_others_come(
    assembly: Assembly, spec: ModelSpec, name: str
) -> None:
    found = {alarm.properties["AlarmName"]: alarm.properties for _, alarm in alarms(assembly)}
    for monitor in monitors(spec):
        alarm, when = found[f"{name}-{monitor.name}"], spec.monitor.when
        expected = ("missing", when.of, when.breaching) if monitor.clock == "window" else ("ignore", 1, 1)
        assert (alarm["TreatMissingData"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == expected


def test_an_alarm_of_a_monitor_says_where_its_newest_report_is(assembly: Assembly, spec: ModelSpec, name: str) -> None:
    for template, alarm in alarms(assembly):
        if alarm.properties["AlarmName"] in {f"{name}-{monitor.name}" for monitor in monitors(spec)}:
            said = assembly.flat(alarm.properties["AlarmDescription"])
            assert f"s3://noria-{assembly.env}-data-" in said
            assert f"/{spec.model}/reports/latest.html " in said
            assert len(said) <= 1024, template


# --- runbooks


def said(assembly: Assembly, alarm: Resource) -> Told:
    told = Told.read(assembly.flat(alarm.properties["AlarmDescription"]))
    assert told, f"{alarm.path} names no runbook"
    return told


def runbook(assembly: Assembly, alarm: Resource) -> str:
    return f"{said(assembly, alarm).runbook}.md"


def of_people(assembly: Assembly) -> Iterator[Resource]:
    """The alarms that are for people: not the one that starts an asynchronous endpoint's first instance."""
    for _, alarm in (*alarms(assembly), *composites(assembly)):
        if not alarm.properties["AlarmName"].endswith("-scale-from-zero"):
            yield alarm


def test_every_alarm_names_a_runbook(assembly: Assembly) -> None:
    for alarm in of_people(assembly):
        assert (RUNBOOKS / runbook(assembly, alarm)).is_file(), alarm.path


def test_every_runbook_has_an_alarm(assembly: Assembly) -> None:
    written = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert {runbook(assembly, alarm) for alarm in of_people(assembly)} == written


def test_every_runbook_speaks_of_the_alarms_that_name_it(assembly: Assembly) -> None:
    for alarm in of_people(assembly):
        title = (RUNBOOKS / runbook(assembly, alarm)).read_text().splitlines()[0]
        patterns = re.findall(r"`(.+?)`", title)
        assert any(re.fullmatch(named(pattern, assembly), alarm.properties["AlarmName"]) for pattern in patterns), title


def test_the_index_is_one_table_with_the_name_and_page_of_every_alarm(assembly: Assembly) -> None:
    (table,) = re.findall(r"(?:^\|.*\n)+", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| `(.+?)` \|.*\| (\w+) \|(?: `(.+?)`)? \| \[.*\((.+?)\) \|$", table, re.MULTILINE)
    by = {name: c.properties["AlarmName"] for t, c in composites(assembly) for name in children(assembly, t, c)}
    for alarm in of_people(assembly):
        name, told = alarm.properties["AlarmName"], said(assembly, alarm)
        ((severity, cause, page),) = {row[1:] for row in rows if re.fullmatch(named(row[0], assembly), name)}
        assert (severity, page) == (str(told.severity or "none").lower(), f"{told.runbook}.md"), alarm.path
        if name in by:
            burn = BURNS.search(name)
            assert cause in {*CAUSES, *(burn.groups() if burn else ())}, alarm.path
            assert by[name].endswith(f"-{cause}"), alarm.path


def named(pattern: str, assembly: Assembly) -> str:
    """A regular expression of the names that a runbook's pattern stands for."""
    name = re.escape(pattern).replace("<env>", assembly.env)
    name = name.replace("<model>", "(?:flight-delay|house-prices)")
    return re.sub("<(reaction|measure|segment|name)>", ".+", name)


PAGES = sorted(path.name for path in RUNBOOKS.glob("*.md"))


@pytest.mark.parametrize("name", [page for page in PAGES if page != "README.md"])
def test_a_runbook_is_one_page_with_the_same_headings_and_in_the_index(name: str) -> None:
    text = (RUNBOOKS / name).read_text()
    headings = ["Symptom", "Meaning", "First command", "Usual causes", "How to go back", "When to escalate"]
    assert re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE) == headings
    assert len(text.splitlines()) <= 60
    assert f"({name})" in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_a_runbook_exists(name: str) -> None:
    text = (RUNBOOKS / name).read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`(noria [^`]+)`", text)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for line in lines:
        for command, rest in re.findall(r"\bnoria (?=[a-z]+\b)(?<!/noria )([a-z]+)\b(.*)", line):
            assert command in group.commands, line
            known = {option for param in group.commands[command].params for option in param.opts}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, line
        for service, operation in re.findall(r"\baws ([a-z0-9]+) ([a-z0-9-]+)", line):
            assert exists(service, operation), line


CUSTOM = {("logs", "tail"), ("s3", "cp"), ("configure", "get")}
"""Commands of the AWS CLI that are no operation of a service."""


def exists(service: str, operation: str) -> bool:
    if (service, operation) in CUSTOM:
        return True
    model = botocore.session.get_session().get_service_model(service)
    return operation in {xform_name(name, "-") for name in model.operation_names}
