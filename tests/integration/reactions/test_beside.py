"""What answers beside the champion, and the way back, on a real stack with a real endpoint."""

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from noria.cli import serving
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.deployment import Desired
from noria.ledger import Fact, Kind, verify
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, Place
from tests.integration.reactions.served import BROKEN, Served


def serve(place: Place, **changes: Any) -> Served:
    serving = {"mode": "realtime", "count": 3, "strategy": "canary", "bake": "10m", **changes}
    return Served(place, place.model(serve=serving).model).create()


@pytest.fixture
def served(place: Place, everything: None) -> Served:
    """A model whose first version answers; two more are registered."""
    return serve(place)


def first(served: Served) -> tuple[str, str, str]:
    packages = served.register(), served.register(), served.register()
    served.approve(packages[0])
    served.confirm()
    return packages


def alarm(served: Served, at: datetime | None = None) -> dict[str, Any]:
    state = {"value": "ALARM", "reason": "5 of 100 failed", "timestamp": (at or datetime.now(UTC)).isoformat()}
    detail = {"alarmName": f"{served.place.names.challenger_alarms(served.model)}errors", "state": state}
    return served.place.event("aws.cloudwatch", "CloudWatch Alarm State Change", detail)


def booked(served: Served) -> list[dict[str, Any]]:
    scheduler = boto3.client("scheduler")
    names = [item["Name"] for item in scheduler.list_schedules(GroupName="noria-local")["Schedules"]]
    return [
        scheduler.get_schedule(GroupName="noria-local", Name=name)  # type: ignore[misc]
        for name in names
        if name.startswith(f"advance-{served.model}-")
    ]


def changes(served: Served) -> serving.Changes:
    """What a person's command does."""
    parameter = served.place.names.parameter
    places = {
        parameter("data-bucket"): BUCKET,
        parameter("event-bus"): "noria-local",
        parameter("ledger-table"): "ledger",
    }
    for name, value in places.items():
        boto3.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
    spec = ModelSpec.model_validate_json((served.place.models / f"{served.model}.json").read_text())
    return serving.Changes(Deployed("local"), spec)


def probe(served: Served, *, wrong: int) -> None:
    """What probe_deployment records of the challenger that is live."""
    challenger = served.live().challenger
    details = {"package": challenger, "variant": "challenger", "wrong": wrong, "shift": None}
    subject, summary = f"config-{wrong}#challenger", f"{wrong} golden rows are answered wrongly."
    served.place.ledger.record(
        Fact(
            model=served.model,
            kind=Kind.PROBED,
            subject=subject,
            at=datetime.now(UTC),
            summary=summary,
            details=details,
        )
    )


def advance(served: Served) -> None:
    """The tick of the step that is live."""
    (step, *_) = reversed(served.place.entries(served.model, Kind.DEPLOYED))
    detail = {"model": served.model, "time": datetime.now(UTC).isoformat(), "deployment": step.subject}
    served.place.deliver(
        deploy_model, {"source": "noria.schedule", "detail-type": "Advance Challenger", "detail": detail}
    )
    served.confirm()


def test_an_ab_begins_moves_and_is_promoted(served: Served) -> None:
    one, two, _ = first(served)
    asked = served.ask("traffic", package=two, percent=20)
    assert served.parameters["Guardrails"] == "off"
    served.confirm()
    served.place.deliver(deploy_model, asked)
    assert served.live() == Desired(package=one, challenger=two, percent=20)
    served.ask("traffic", percent=50)
    assert served.parameters["Guardrails"] == "on"
    served.confirm()
    assert served.live() == Desired(package=one, challenger=two, percent=50)
    assert served.place.sagemaker.describe_model_package(ModelPackageName=two)["ModelApprovalStatus"] == "Approved"
    served.ask("promote")
    served.confirm()
    assert served.live() == Desired(package=two)
    assert served.answers() == "2"
    assert verify(served.place.entries(served.model)) == []


def test_a_challenger_that_cannot_start_leaves_the_champion_and_may_be_tried_again(served: Served) -> None:
    one, _, _ = first(served)
    broken = served.register(BROKEN)
    served.ask("traffic", package=broken, percent=20)
    served.confirm()
    assert served.kinds()[-1] is Kind.DEPLOYMENT_FAILED
    assert served.outcome(broken) == "failed"
    assert served.outcome(one) == "live"
    assert served.live() == Desired(package=one)
    served.ask("traffic", package=broken, percent=20)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REQUESTED


def test_all_commands_say_from_what_to_what_a_deployment_is_under_way(served: Served) -> None:
    one, two, three = first(served)
    command = changes(served)
    assert command.deployed.status(served.model).under_way is None
    served.approve(two)
    status = command.deployed.status(served.model)
    assert status.under_way == "a deployment is under way, from version 1 to version 2"
    assert f"; {status.under_way}; " in status.summary
    change = command.ask("traffic", package=three, percent=20, reason="to compare")
    assert (change.now, change.then) == ("version 1", "version 2, with version 3 on 20%")
    assert change.waits
    began, _, takes = change.waits.partition(", since ")
    assert began == "for its turn: a deployment is under way, from version 1 to version 2"
    assert takes.endswith(
        " UTC, and takes 2 bakes of 10m, after new instances have started; an alarm may end it sooner"
    )
    with pytest.raises(Refused, match=r"the champion: name another version. A deployment is under way, from version 1"):
        command.ask("shadow", package=two, reason="to compare")
    served.ask("traffic", package=three, percent=20)
    then = "from version 1 to version 2; then version 2, with version 3 on 20% is to go live"
    assert then in str(command.deployed.status(served.model).under_way)
    change = command.ask("rollback", reason="it is slow", package=one, dry_run=True)
    assert change.then == "version 1"
    assert str(change.waits).startswith(began)
    assert str(change.waits).endswith(". It replaces version 2, with version 3 on 20%, which waits too")
    served.confirm()
    served.confirm()
    assert command.deployed.status(served.model).under_way is None


def test_an_alarm_of_the_challenger_abandons_it_and_it_never_comes_back(served: Served) -> None:
    one, two, _ = first(served)
    served.ask("traffic", package=two, percent=20)
    served.confirm()
    served.place.deliver(deploy_model, alarm(served, datetime.now(UTC) - timedelta(hours=1)))
    assert served.live().challenger == two, "an alarm from before the A/B says nothing against it"
    raised = alarm(served)
    for _ in range(2):
        served.place.deliver(deploy_model, raised)
    served.confirm()
    assert served.live() == Desired(package=one)
    assert served.outcome(two) == "rolled-back"
    (page,) = served.place.notices(served.model)
    assert "version 2 was rolled back as challenger" in page
    (event,) = served.place.events(served.model, "Model Rolled Back")
    assert (event["package"], event["live"]) == (two, one)
    served.ask("traffic", package=two, percent=20)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REFUSED
    served.approve(two)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REFUSED


def test_a_shadow_answers_nobody_and_excludes_an_ab(served: Served) -> None:
    one, two, three = first(served)
    served.ask("shadow", package=two)
    assert served.parameters["Guardrails"] == "on"
    served.confirm()
    assert served.live() == Desired(package=one, shadow=two)
    assert served.answers() == "1"
    served.ask("traffic", package=three, percent=10)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REFUSED
    served.ask("shadow")
    served.confirm()
    assert served.live() == Desired(package=one)


def test_a_new_champion_during_an_ab_is_guarded_and_the_ab_goes_on(served: Served) -> None:
    _, two, three = first(served)
    served.ask("traffic", package=two, percent=20)
    served.confirm()
    served.approve(three)
    assert served.parameters["Guardrails"] == "on"
    served.confirm()
    assert served.live() == Desired(package=three, challenger=two, percent=20)


def test_the_way_back_is_one_update_and_goes_further_each_time(served: Served) -> None:
    packages = first(served)
    for package in packages[1:]:
        served.approve(package)
        served.confirm()
    command = changes(served)
    with pytest.raises(Refused, match="Give a reason"):
        command.ask("rollback", reason="")
    assert command.ask("rollback", reason="", dry_run=True).then == "version 2"
    asked = served.ask("rollback")
    assert (served.wanted(), served.parameters["Guardrails"]) == (packages[1], "at-once")
    served.ask("rollback")
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REFUSED, "one is under way"
    for dry_run in (True, False):
        with pytest.raises(Refused, match=r"A rollback to version 2 is under way \(.*\): wait for it, or name"):
            command.ask("rollback", reason="once more", dry_run=dry_run)
    assert command.ask("rollback", reason="", package=packages[0], dry_run=True).then == "version 1"
    assert served.place.events(served.model, "Serving Requested") == []
    served.confirm()
    assert served.answers() == "2"
    served.place.deliver(deploy_model, asked)
    served.ask("rollback")
    served.confirm()
    assert served.answers() == "1"
    served.ask("rollback")
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REFUSED
    served.ask("rollback", package=packages[2])
    served.confirm()
    assert served.answers() == "3"


def test_a_progressive_deployment_goes_on_by_itself_until_it_is_champion(place: Place, everything: None) -> None:
    served = serve(place, strategy="progressive", weights=[5, 25], count=1, bake="1h")
    one, two, _ = first(served)
    served.approve(two)
    served.confirm()
    served.confirm()
    assert served.live() == Desired(package=one, challenger=two, percent=5)
    (schedule,) = booked(served)
    assert schedule["Target"]["Arn"].endswith("deploy-model")
    advance(served)
    assert served.live() == Desired(package=one, challenger=two, percent=5), "it has not been probed"
    probe(served, wrong=0)
    advance(served)
    assert served.live() == Desired(package=one, challenger=two, percent=25)
    assert len(booked(served)) == 2
    advance(served)
    assert served.live() == Desired(package=two)
    assert len(booked(served)) == 2
    causes = [entry.details["cause"] for entry in served.place.entries(served.model, Kind.DEPLOYMENT_REQUESTED)]
    assert causes == ["approved", "progressive", "progressive", "promote"]


def test_a_progressive_version_with_wrong_golden_rows_ends_at_its_step(place: Place, everything: None) -> None:
    served = serve(place, strategy="progressive", weights=[5, 25], count=1, bake="1h")
    one, two, _ = first(served)
    served.approve(two)
    served.confirm()
    probe(served, wrong=3)
    advance(served)
    assert served.live() == Desired(package=one)
    assert served.outcome(two) == "rolled-back"
    (page,) = served.place.notices(served.model)
    assert "3 golden rows are answered wrongly" in page


def test_who_moves_the_traffic_of_a_progressive_deployment_decides_from_there(place: Place, everything: None) -> None:
    served = serve(place, strategy="progressive", weights=[5, 25], count=1, bake="1h")
    one, two, _ = first(served)
    served.approve(two)
    served.confirm()
    served.ask("traffic", percent=10)
    served.confirm()
    advance(served)
    assert served.live() == Desired(package=one, challenger=two, percent=10)
    served.ask("abandon")
    served.confirm()
    assert served.live() == Desired(package=one)


def test_a_request_that_meets_a_deployment_waits_and_says_so(served: Served) -> None:
    _, two, three = first(served)
    served.approve(two)
    served.ask("traffic", package=three, percent=20)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_WAITING
    served.confirm()
    served.confirm()
    assert served.live() == Desired(package=two, challenger=three, percent=20)


def test_a_template_that_was_rolled_back_under_the_same_package_is_told(served: Served) -> None:
    one, _, _ = first(served)
    config = served.place.sagemaker.describe_endpoint(EndpointName=served.name)["EndpointConfigName"]
    # Somebody moves the endpoint to a configuration of the same package that the stack does not have.
    described = served.place.sagemaker.describe_endpoint_config(EndpointConfigName=config)
    served.place.sagemaker.create_endpoint_config(
        EndpointConfigName=f"{served.model}-other", ProductionVariants=described["ProductionVariants"]
    )
    served.place.sagemaker.update_endpoint(EndpointName=served.name, EndpointConfigName=f"{served.model}-other")
    served.place.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=served.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    for _ in range(2):
        served.confirm()
    assert served.kinds()[-1] is Kind.SERVING_DIFFERS
    (page,) = served.place.pages(served.model)
    assert "another configuration than the stack's" in page
    assert served.live() == Desired(package=one)


def test_who_asks_by_command_has_seen_the_ledger_and_the_challenger_that_is_meant(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = first(served)
    served.ask("traffic", package=two, percent=20)
    served.confirm()
    (*_, traffic) = served.place.entries(served.model, Kind.DEPLOYMENT_REQUESTED)

    class Slow(datetime):
        """The clock of a laptop that is late."""

        @classmethod
        def now(cls, tz: Any = None) -> "Slow":
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(serving, "datetime", Slow)
    changes(served).ask("abandon", reason="worse")
    (asked,) = served.place.events(served.model, "Serving Requested")
    assert asked["package"] == two
    assert asked["requested_at"] > str(traffic.details["decided_at"])
    served.place.deliver(deploy_model, served.place.event("noria", "Serving Requested", asked))
    served.confirm()
    assert served.live() == Desired(package=one)


def test_an_alarm_on_the_way_back_leaves_the_good_version_to_go_back_to(served: Served) -> None:
    one, two, _ = first(served)
    served.approve(two)
    served.confirm()
    served.alarm("ALARM")
    served.ask("rollback")
    served.stack()
    served.alarm("OK")
    served.confirm()
    assert served.answers() == "2"
    assert served.outcome(one) != "rolled-back"
    (page,) = served.place.pages(served.model)
    assert "The version you are leaving still answers: version 2." in page
    served.ask("rollback")
    served.confirm()
    assert served.answers() == "1"


def test_a_tick_has_it_looked_at_like_an_event(served: Served) -> None:
    first(served)
    detail = {"model": served.model, "time": datetime.now(UTC).isoformat()}
    before = served.kinds()
    served.place.deliver(
        confirm_deployment, {"source": "noria.schedule", "detail-type": "Confirm Deployment", "detail": detail}
    )
    assert served.kinds() == before
