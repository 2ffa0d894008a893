"""A real endpoint goes outside of its model's hours and comes back in them, by the clock and not by the event."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from lambdas.deploy_model.handler import handler as deploy_model
from noria.cli.commands import app
from noria.ledger import Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, Place
from tests.integration.reactions.served import Served

STARTED = datetime.now(UTC)


def hours(*, within: bool) -> dict[str, Any]:
    """Of each day, where it is noon: now is far from both ends."""
    start, end = ("06:00", "18:00") if within else ("18:00", "24:00")
    return {"days": "MON-SUN", "from": start, "to": end, "timezone": f"Etc/GMT{STARTED.hour - 12:+d}"}


def set_hours(served: Served, *, within: bool) -> None:
    """As if time had passed: the spec's hours are moved instead."""
    path = served.place.models / f"{served.model}.json"
    spec = ModelSpec.model_validate_json(path.read_text())
    described = spec.model_dump(mode="json")
    described["serve"]["hours"] = hours(within=within)
    path.write_text(ModelSpec.model_validate(described).model_dump_json())


@pytest.fixture
def served(place: Place, everything: None) -> Served:
    served = Served(place, place.model().model).create()
    set_hours(served, within=True)
    return served


def keep_hours(served: Served) -> None:
    detail = {"model": served.model, "time": STARTED.isoformat()}
    served.place.deliver(deploy_model, {"source": "noria.schedule", "detail-type": "Keep Hours", "detail": detail})


@pytest.fixture
def unanswered(served: Served, tmp_path: Path) -> Callable[[], str]:
    """Why nobody answers, as `noria predict` tells it."""
    for name, value in {"data-bucket": BUCKET, "ledger-table": "ledger"}.items():
        boto3.client("ssm").put_parameter(Name=f"/noria/local/{name}", Value=value, Type="String", Overwrite=True)

    def ask() -> str:
        spec = (served.place.models / f"{served.model}.json").read_text()
        (tmp_path / f"{served.model}.yaml").write_text(spec)
        arguments = ["predict", served.model, "--row", "{}", "--models", str(tmp_path), "--env", "local"]
        return str(CliRunner().invoke(app, arguments).exception)

    return ask


def test_an_endpoint_goes_and_comes_back_and_what_is_approved_meanwhile_follows(
    served: Served, unanswered: Callable[[], str]
) -> None:
    no_answer = "No answer (503): no version of the model is live.\n"
    assert unanswered() == f"{no_answer}Approve a version: noria packages {served.model}"
    one, two = served.register(), served.register()
    served.approve(one)
    served.confirm()
    keep_hours(served)
    assert served.answers() == "1"

    set_hours(served, within=False)
    keep_hours(served)
    keep_hours(served)
    served.confirm()
    served.confirm()
    assert served.wanted() == "none"
    zone = hours(within=False)["timezone"]
    assert unanswered().startswith(f"{no_answer}{served.model} answers on MON-SUN 18:00 to 24:00 {zone}: it is back")
    assert f" 18:00 {zone}, or change serve.hours in its YAML and deploy." in unanswered()
    assert served.place.sagemaker.list_endpoints(NameContains=served.name)["Endpoints"] == []
    assert served.kinds()[3:] == [Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED]
    served.approve(two)
    assert served.wanted() == "none"
    assert served.kinds()[-1] is Kind.DEPLOYMENT_WAITING

    set_hours(served, within=True)
    assert unanswered().startswith(f"{no_answer}It is coming back, which takes minutes, for its hours, MON-SUN 06:00 ")
    keep_hours(served)
    assert served.wanted() == one
    served.confirm()
    assert served.wanted() == two
    served.confirm()
    assert served.answers() == "2"
    assert served.place.told(served.model) == []
    events = served.place.events(served.model, "Model Deployed")
    assert [event["package"] for event in events] == [one, one, two]
