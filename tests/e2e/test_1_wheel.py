"""The whole loop on the local cloud, in the order in which it turns: each test builds on the one before."""

from datetime import datetime
from pathlib import Path

import pytest

from local.demo.control import Control
from local.demo.faults import Fault
from local.demo.scenes import Play
from local.demo.world import World
from noria.ledger import Entry, Kind, verify


@pytest.fixture
def live(play: Play) -> Play:
    if not play.live:
        pytest.fail("no model is live: test_january_goes_live failed before")
    return play


def test_january_goes_live(play: Play) -> None:
    play.first_model()
    assert play.live


def test_one_id_goes_with_january_from_upload_to_live(live: Play, world: World) -> None:
    entries = world.entries()
    deployed = next(entry for entry in entries if entry.kind is Kind.DEPLOYED)
    turns = {Kind.DATASET_ACCEPTED, Kind.RETRAINING_REQUESTED, Kind.TRAINING_STARTED, Kind.TRAINING_SUCCEEDED}
    turns |= {Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED}
    chain = [entry for entry in entries[: deployed.number] if entry.kind in turns]
    assert {entry.kind for entry in chain} == turns
    assert {entry.correlation for entry in chain} == {deployed.correlation}

    told = world.noria("logs", str(deployed.correlation))
    assert [line["message"] for line in told if line["level"] in turns] == [entry.summary for entry in chain]
    where = {line["where"] for line in told if line["kind"] == "log"}
    functions = {"validate-upload", "request-retraining", "start-training", "record-training", "deploy-model"}
    assert functions | {"confirm-deployment"} <= where
    assert any("Train" in name for name in where), f"no line of the training job: {sorted(where)}"
    before, after = (
        [line for line in lines if line["kind"] == "ledger"] for lines in (told, world.noria("logs", live.live))
    )
    assert after[: len(before)] == before, "a version leads to the same; a probe may have come meanwhile"


def test_nothing_is_wrong_where_all_is_well(live: Play, world: World) -> None:
    diagnosis = world.noria("doctor")
    assert diagnosis["denied"] == []
    assert diagnosis["findings"] == []


def test_a_broken_file_is_quarantined(live: Play) -> None:
    live.broken_upload()
    assert live.world.entries()[-1].kind is Kind.DATASET_QUARANTINED


def test_drift_retrains_and_the_new_model_goes_live_without_a_failed_request(live: Play) -> None:
    first = live.live
    live.drift_and_retraining()
    assert live.live != first
    (requested,) = _retrainings(live.world)
    again = datetime.fromisoformat(str(requested.details["again_at"]))
    scheduler = live.world.client("scheduler")
    booked = [
        scheduler.get_schedule(Name=item["Name"], GroupName=item["GroupName"])["ScheduleExpression"]
        for item in scheduler.list_schedules(NamePrefix=f"re-check-{live.world.model}-")["Schedules"]
    ]
    assert f"at({again:%Y-%m-%dT%H:%M:%S})" in booked


def _retrainings(world: World) -> list[Entry]:
    """What was granted once there was a model."""
    granted = (entry for entry in world.entries() if entry.kind is Kind.RETRAINING_REQUESTED)
    return [entry for entry in granted if entry.details["cause"] != "first"]


def test_late_labels_are_joined_a_prediction_is_explained_and_all_is_on_one_page(
    live: Play, control: Control, tmp_path: Path
) -> None:
    control.learn()
    live.late_labels(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "flight-delay" in page
    assert "<svg" in page


def test_a_control_whose_requests_do_not_change_stays_quiet(live: Play, control: Control) -> None:
    control.go_live()
    control.stays_quiet()
    assert _retrainings(control.world) == []


@pytest.mark.parametrize(("fault", "ending"), [(Fault.FAILS, "success"), (Fault.SWAPPED, "failure")])
def test_a_bad_version_is_rolled_back(live: Play, fault: Fault, ending: str) -> None:
    before = live.live
    live.bad_candidate(fault, ending)
    assert live.serving_package() == before


def test_the_ledger_holds_together_and_the_command_tells_it(live: Play, world: World) -> None:
    live.told()
    assert verify(world.entries()) == []
