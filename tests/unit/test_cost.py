"""What a cloud costs, against sums done by hand from the same price list."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from noria.cli.commands import app
from noria.cli.output import Refused
from noria.cost import Load, Occasion, Unpriced, Usage, bill, fires, usages
from noria.prices import FILE, NoPrice, prices
from noria.template import Assembly, Template

QUEUE_AND_FUNCTION: dict[str, Any] = {
    "Key": {"Type": "AWS::KMS::Key", "Properties": {}},
    "Queue": {"Type": "AWS::SQS::Queue", "Properties": {}},
    "Function": {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": "noria-dev-reconcile",
            "MemorySize": 512,
            "Architectures": ["arm64"],
            "TracingConfig": {"Mode": "Active"},
        },
    },
    "Polls": {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Properties": {
            "EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]},
            "FunctionName": {"Ref": "Function"},
            "ScalingConfig": {"MaximumConcurrency": 5},
        },
    },
    "Clock": {
        "Type": "AWS::Scheduler::Schedule",
        "Properties": {
            "ScheduleExpression": "rate(1 hour)",
            "Target": {"Arn": {"Fn::GetAtt": ["Queue", "Arn"]}, "Input": '{"detail-type": "Reconcile"}'},
        },
    },
    "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Errors", "Period": 60}},
    "Share": {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "Metrics": [
                {"Id": "share", "Expression": "wrong / all"},
                {"Id": "wrong", "MetricStat": {"Period": 60}},
                {"Id": "all", "MetricStat": {"Period": 60}},
            ]
        },
    },
    "Page": {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": {}},
}

SERVING = {
    "Parameters": {"ModelPackageArn": {"Default": "none"}},
    "Conditions": {"Live": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ModelPackageArn"}, "none"]}]}},
    "Resources": {
        "Config": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "Condition": "Live",
            "Properties": {
                "ProductionVariants": [
                    {"VariantName": "champion", "InstanceType": "ml.m5.large", "InitialInstanceCount": 3},
                    {"Fn::If": ["Live", {"Ref": "AWS::NoValue"}, {"VariantName": "other"}]},
                ],
                "Tags": [{"Key": "noria:model", "Value": "flights"}],
            },
        }
    },
}


def cloud(resources: dict[str, Any]) -> Assembly:
    return Assembly((Template("noria-dev-all", {"Resources": resources}),))


def dollars(used: list[Usage], price: str, region: str = "eu-west-1") -> float:
    return sum(charge.listed for charge in bill(used, prices(region)) if charge.price == price)


def test_a_small_template_costs_what_it_does_by_hand() -> None:
    nothing = Load(uploads=0, trainings=0, predictions=0, live=False, data_gb=0, ledger_gb=0, tick_seconds=2)
    charges = bill(usages(cloud(QUEUE_AND_FUNCTION), nothing), prices("eu-west-1"))
    by_hand = {
        "kms.key": 1.00,
        # A month has 730 hours. Five pollers wait 20 s each time; each of 730 messages is sent, received and deleted.
        "sqs.request": (5 * 3 * 60 * 730 + 3 * 730) * 0.40 / 1_000_000,
        "schedule": 730 / 1_000_000,
        "lambda.request": 730 * 0.20 / 1_000_000,
        "lambda.arm64": 730 * 2 * 0.5 * 0.0000133334,
        "trace": 730 * 5 / 1_000_000,
        "alarm.metric": (1 + 2) * 0.10,
        "alarm.composite": 0.50,
        "metric": 0.30,
    }
    listed = {charge.price: 0.0 for charge in charges}
    for charge in charges:
        listed[charge.price] += charge.listed
    assert {name: listed[name] for name in by_hand} == pytest.approx(by_hand)
    assert sum(charge.usd for charge in charges if charge.price == "alarm.metric") == 0  # ten are free
    assert sum(charge.usd for charge in charges if charge.price == "alarm.composite") == 0.50
    assert sum(charge.usd for charge in charges if charge.price == "sqs.request") == 0  # a million is free


def test_a_queue_without_a_bound_is_polled_by_two() -> None:
    polls = {key: dict(value) for key, value in QUEUE_AND_FUNCTION.items() if key != "Clock"}
    polls["Polls"]["Properties"] = {
        key: value for key, value in QUEUE_AND_FUNCTION["Polls"]["Properties"].items() if key != "ScalingConfig"
    }
    used = usages(cloud(polls), Load(data_gb=0))
    assert dollars(used, "sqs.request") == pytest.approx(2 * 131_400 * 0.40 / 1_000_000)


def test_an_endpoint_costs_only_while_a_model_answers() -> None:
    assembly = Assembly((Template("noria-dev-flights-serving", SERVING),))
    asked = Load(predictions=1_000_000, prediction_kb=2)
    used = usages(assembly, asked)
    assert {usage.occasion for usage in used} == {Occasion.LIVE, Occasion.PREDICTIONS}
    assert {usage.model for usage in used} == {"flights"}
    assert dollars(used, "ml.m5.large") == pytest.approx(3 * 730 * 0.128)
    assert dollars(used, "ml.m5.large", "us-east-1") == pytest.approx(3 * 730 * 0.115)
    assert dollars(used, "sagemaker.data") == pytest.approx(2 * 0.016)  # 2 GB
    assert usages(assembly, Load(live=False)) == []


@pytest.mark.parametrize(
    ("start", "end", "days", "hours"),
    [("0 7", "0 20", "MON,TUE,WED,THU,FRI", 13 * 5), ("30 6", "0 0", "SAT", 17.5), ("0 0", "0 0", "MON,FRI", 48)],
)
def test_an_endpoint_with_hours_costs_in_them_alone(start: str, end: str, days: str, hours: float) -> None:
    def turn(name: str, at: str) -> dict[str, Any]:
        told = {"Input": json.dumps({"detail-type": "Keep Hours", "detail": {"model": "flights"}})}
        expression = f"cron({at} ? * {days} *)"
        properties = {"Name": f"noria-dev-flights-{name}", "ScheduleExpression": expression, "Target": told}
        return {"Type": "AWS::Scheduler::Schedule", "Properties": properties}

    turns = {"Resources": {"On": turn("on", start), "Off": turn("off", end)}}
    monitoring = Template("noria-dev-flights-monitoring", turns)
    assembly = Assembly((monitoring, Template("noria-dev-flights-serving", SERVING)))
    assert dollars(usages(assembly, Load()), "ml.m5.large") == pytest.approx(3 * 730 * 0.128 * hours / 168)


def test_what_is_free_is_taken_off_once_for_all_who_use_it() -> None:
    used = [Usage(stack, None, "alarm.metric", 10, Occasion.IDLE) for stack in ("one", "other")]
    charges = bill(used, prices("eu-west-1"))
    assert sum(charge.listed for charge in charges) == pytest.approx(2.00)
    assert [charge.usd for charge in charges] == pytest.approx([0.50, 0.50])


def test_a_training_costs_its_jobs_and_on_spot_a_share_of_them() -> None:
    definition = {
        "Steps": [
            {"Arguments": {"ProcessingResources": {"ClusterConfig": _machine(1)}}},
            {"Arguments": {"ResourceConfig": _machine(2), "EnableManagedSpotTraining": True}},
            {"Type": "Condition"},
        ]
    }
    body = {"Fn::Join": ["", [json.dumps(definition)]]}
    pipeline = {"Type": "AWS::SageMaker::Pipeline", "Properties": {"PipelineDefinition": {}}}
    pipeline["Properties"] = {"PipelineDefinition": {"PipelineDefinitionBody": body}}
    used = usages(cloud({"Pipeline": pipeline}), Load(trainings=6, job_minutes=10, spot_share=0.3))
    # An hour of each job: one machine at the list price, two at 0.3 of it.
    assert dollars(used, "ml.m5.large") == pytest.approx(0.128 * (1 + 2 * 0.3))
    assert dollars(used, "sagemaker.disk") == pytest.approx(3 * 30 / 730 * 0.154)


def _machine(count: int) -> dict[str, Any]:
    return {"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 30}


def test_a_type_that_nobody_priced_is_named() -> None:
    with pytest.raises(Unpriced, match=r"AWS::EC2::NatGateway \(Way of noria-dev-all\)"):
        usages(cloud({"Way": {"Type": "AWS::EC2::NatGateway"}}), Load())


def test_an_instance_or_a_region_without_a_price_is_named() -> None:
    with pytest.raises(NoPrice, match=r"ml\.p5\.48xlarge.*eu-west-1"):
        bill([Usage("stack", None, "ml.p5.48xlarge", 1, Occasion.LIVE)], prices("eu-west-1"))
    with pytest.raises(NoPrice, match=r"eu-west-1, us-east-1"):
        prices("mars-1")


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("rate(5 minutes)", 8760),
        ("rate(1 day)", 730 / 24),
        ("cron(0 7 * * ? *)", 730 / 24),
        ("cron(0/15 8-17 ? * MON-FRI *)", 4 * 10 * 730 / 24 * 5 / 7),
        ("cron(0 3 1 * ? *)", 730 / 24 / 31),
        ("at(2026-11-22T05:00:00)", 0),
    ],
)
def test_how_often_a_schedule_fires_in_a_month(expression: str, times: float) -> None:
    assert fires(expression) == pytest.approx(times)


def test_every_price_is_of_both_regions_and_names_what_it_was_read_in() -> None:
    file = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for name, entry in file["prices"].items():
        assert {"eu-west-1", "us-east-1"} <= entry.keys(), name
    ours = prices("eu-west-1").by_name.values()
    assert sum(price.verified for price in ours) > len(ours) / 2


def write(folder: Path, resources: dict[str, Any], stack: str = "noria-dev-all") -> Path:
    folder.mkdir()
    artifact = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://123456789012/eu-west-1",
        "properties": {"stackName": stack, "templateFile": "all.json"},
    }
    (folder / "manifest.json").write_text(json.dumps({"artifacts": {"all": artifact}}))
    (folder / "all.json").write_text(json.dumps({"Resources": resources}))
    return folder


def ask(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["cost", "--json", *arguments])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def test_the_command_says_what_two_clouds_differ_in(tmp_path: Path) -> None:
    before = write(tmp_path / "before", QUEUE_AND_FUNCTION)
    after = write(tmp_path / "after", QUEUE_AND_FUNCTION | {"Board": {"Type": "AWS::CloudWatch::Dashboard"}})
    told = ask("--out", str(after), "--against", str(before))
    assert told["after"] - told["before"] == pytest.approx(3.00)
    assert [(each["what"], each["difference"]) for each in told["differences"]] == [
        ("CloudWatch of noria-dev-all", pytest.approx(3.00))
    ]
    assert ask("--out", str(after), "--against", str(after))["differences"] == []
    table = CliRunner().invoke(app, ["cost", "--out", str(after), "--against", str(before)])
    assert table.exit_code == 0
    assert "+3.00" in table.stdout


def test_the_command_says_what_it_assumes_and_takes_prices_and_assumptions(tmp_path: Path) -> None:
    out = str(write(tmp_path / "out", QUEUE_AND_FUNCTION))
    told = ask("--out", out, "--assume", "tick_seconds=7", "--price", "kms.key=4")
    assert told["load"]["tick_seconds"] == 7
    assert next(row["idle"] for row in told["services"] if row["name"] == "KMS") == pytest.approx(4 + 730 * 3 * 3e-6)
    assert told["services"][-1]["total"] == pytest.approx(sum(row["total"] for row in told["services"][:-1]))
    assert any("list prices" in note.lower() for note in told["notes"])


def test_its_tables_fit_a_terminal_of_eighty_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    variant = {"VariantName": "champion", "InstanceType": "ml.m5.24xlarge", "InitialInstanceCount": 9}
    fleet = {"Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}}}
    out = write(tmp_path / "out", QUEUE_AND_FUNCTION | fleet, "noria-dev-flight-delay-at-night-monitoring")
    prices = ("--price", "ml.m5.24xlarge=5.53")
    told = CliRunner().invoke(app, ["cost", "--out", str(out), *prices], catch_exceptions=False).stdout
    services, stacks, units, _ = told.split("\n\n")
    assert max(map(len, [*services.splitlines(), *stacks.splitlines(), *units.splitlines()])) <= 80
    heads, _, monitoring, everything = stacks.splitlines()
    assert heads.split() == ["idle", "live", "load", "total", "paid", "stack"]
    assert monitoring.split()[-1] == "flight-delay-at-night-monitoring"
    assert monitoring.split()[:-1] == everything.split()[:-1]

    whole = ask("--out", str(out), *prices)["stacks"][-1]
    load = sum(whole[each] for each in ("uploads", "trainings", "predictions"))
    dollars = [f"{each:,.2f}" for each in (whole["idle"], whole["live"], load, whole["total"], whole["paid"])]
    assert everything.split() == [*dollars, "all"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--assume", "patience=1"), "patience"),
        (("--assume", "job_minutes"), "NAME=NUMBER"),
        (("--price", "ml.m5.large=cheap"), "no number of dollars"),
        (("--price", "everything=1"), "known are"),
        (("--region", "mars-1"), "mars-1"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(tmp_path: Path, arguments: tuple[str, str], problem: str) -> None:
    out = str(write(tmp_path / "out", QUEUE_AND_FUNCTION))
    with pytest.raises(Refused, match=problem):
        ask("--out", out, *arguments)


def test_the_command_says_how_to_synthesise(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cdk synth"):
        ask("--out", str(tmp_path))
