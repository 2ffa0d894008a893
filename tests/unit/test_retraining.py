"""The governor says yes or no, always by which rule and on which numbers, and a no says when it ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.monitors import monitors
from noria.policy import Cause, Quiet
from noria.retraining import LOOK_AGAIN, LOST, Ask, Decision, data_asks, decide, expected_hours
from noria.spec import ModelSpec, load, parse
from noria.training import training_token
from tests.unit import test_training_machine as machine
from tests.unit.serving_world import GROUP
from tests.unit.training_world import TrainingWorld

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
YAML = (Path(__file__).parents[2] / "models" / "flight-delay.yaml").read_text()
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
Detail = str | int | float | bool | list[str]


def spec(retrain: str = "after: [drift], cooldown: 24h, budget: 2 per week") -> ModelSpec:
    lines = [f"retrain: {{{retrain}}}" if line.startswith("retrain:") else line for line in YAML.splitlines()]
    return parse("\n".join(lines), name="test.yaml")


def entry(kind: Kind, subject: str, ago: timedelta, **details: Detail) -> Entry:
    fact = Fact(model="flight-delay", kind=kind, subject=subject, at=NOW - ago, summary="…", details=dict(details))
    return Entry.after(fact, number=1, previous=GENESIS)


def accepted(sha: str, ago: timedelta, rows: int = 1000, **details: Detail) -> Entry:
    return entry(Kind.DATASET_ACCEPTED, sha, ago, rows=rows, **details)


def granted(request: str, ago: timedelta, cause: Cause = "drift") -> Entry:
    return entry(Kind.RETRAINING_REQUESTED, request, ago, cause=cause)


def began(request: str, ago: timedelta, *datasets: str) -> Entry:
    token = training_token("flight-delay", request)
    return entry(Kind.TRAINING_STARTED, token, ago, execution=f"run {request}", datasets=list(datasets))


def succeeded(request: str, ago: timedelta, hours: float = 0.1) -> Entry:
    return entry(Kind.TRAINING_SUCCEEDED, f"run {request}", ago, hours=hours)


def failed(request: str, ago: timedelta, *, refused: bool = False, hours: float = 0.1) -> Entry:
    return entry(Kind.TRAINING_FAILED, f"run {request}", ago, refused=refused, hours=hours)


def trained(request: str, ago: timedelta, *datasets: str, cause: Cause = "drift", hours: float = 0.1) -> list[Entry]:
    return [granted(request, ago, cause), began(request, ago, *datasets), succeeded(request, ago - HOUR / 4, hours)]


MODEL = [accepted("january", 30 * DAY), *trained("first", 29 * DAY, "january", cause="first")]
FEBRUARY = accepted("february", DAY)


def ask(cause: Cause = "drift", *, raised: timedelta | None = None, forced: bool = False, name: str = "drift") -> Ask:
    monitor = next(m for m in monitors(spec()) if m.name == name) if cause in {"drift", "quality"} else None
    return Ask(cause=cause, monitor=monitor, raised=None if raised is None else NOW - raised, forced=forced)


def said(
    model: ModelSpec, *history: Entry, cause: Cause = "drift", now: datetime = NOW, forced: bool = False
) -> Decision:
    return decide(model, history, ask(cause, forced=forced), now=now)


# --- yes, and what it rests on


def test_new_data_and_nothing_in_the_way_is_a_yes_with_its_numbers() -> None:
    decision = said(spec("after: [drift], hours: 5"), *MODEL, FEBRUARY, accepted("march", DAY, rows=500))
    assert decision.retrain
    assert decision.rules == ()
    assert decision.numbers == {
        "new_rows": 1500,
        "new_datasets": 2,
        "min_new_rows": 1,
        "runs": 0,
        "budget_runs": 4,
        "hours": 0.1,
        "next_hours": 0.1,
        "next_hours_from": "the longest of the last 1 run",
        "budget_hours": 5,
    }
    assert decision.sentence == (
        "trains: Data drift is beyond its limit; no training has learnt from 2 datasets (1,500 new rows); "
        "0 of 4 retrainings per month are spent; 0.10 of 5 instance-hours per month are spent, "
        "and the next run may take 0.10 (the longest of the last 1 run)."
    )


def test_an_alarm_is_looked_at_again_after_the_cooldown_in_case_its_training_comes_to_nothing() -> None:
    assert said(spec(), *MODEL, FEBRUARY).again_at == NOW + DAY + SECOND
    assert said(spec(), *MODEL, FEBRUARY, cause="schedule").again_at is None


def test_all_refusals_are_told_and_the_last_to_end_decides() -> None:
    history = [*trained("one", 3 * DAY, "january"), *trained("two", 4 * HOUR, "january")]
    decision = said(spec(), *MODEL, *history)
    assert decision.rules == ("rows", "cooldown", "runs")
    assert len(decision.reasons) == 3
    assert decision.again_at == NOW + 4 * DAY + SECOND


def test_what_is_looked_at_again_comes_when_the_refusal_is_over() -> None:
    """Scheduler knows whole seconds: a look that came a moment too early would be refused, and booked as done."""
    odd = granted("odd", timedelta(hours=23, microseconds=-250_000))
    history = [*MODEL, odd, began("odd", HOUR, "january"), succeeded("odd", HOUR), FEBRUARY]
    decision = said(spec(), *history)
    assert decision.again_at
    assert decision.again_at.microsecond == 0
    assert said(spec(), *history, now=decision.again_at).retrain


@pytest.mark.parametrize(
    ("model", "history", "step"),
    [
        (spec(), [], HOUR),
        (spec("after: [drift], dry_run: true, cooldown: 6h"), [FEBRUARY], 6 * HOUR),
        (spec("after: [drift], cooldown: 5m"), [FEBRUARY, granted("two", 2 * HOUR)], LOOK_AGAIN),
    ],
    ids=["no data", "dry run", "under way"],
)
def test_an_alarm_that_comes_and_goes_is_looked_at_again_once_in_a_while(
    model: ModelSpec, history: list[Entry], step: timedelta
) -> None:
    """A look is named by its time: of all that are booked within a step, and of those that follow them, one is made."""
    asked = [NOW + step * part for part in (0, 0.01, 0.5, 0.999)]
    looks = {said(model, *MODEL, *history, now=now).again_at for now in asked}
    assert looks == {NOW + step + SECOND}
    (look,) = looks
    assert look
    assert said(model, *MODEL, *history, now=look).again_at == NOW + 2 * step + SECOND


def test_a_flapping_alarm_books_one_look(tmp_path: Path) -> None:
    world, model = TrainingWorld(), machine.spec("alarms")
    (tmp_path / f"{model.model}.json").write_text(model.model_dump_json())
    training = machine.Training(world, model, tmp_path)
    world.now = world.now.replace(minute=1)
    for _ in range(5):
        world.raise_alarm("drift")
        training.receive(world.messages.pop())
        world.now += HOUR / 6
    assert [entry.kind for entry in training.entries()] == [Kind.RETRAINING_DECLINED] * 5
    assert len(world.schedules) == 1


# --- policy, data


@pytest.mark.parametrize("cause", ["drift", "quality", "bias", "upload"])
def test_what_the_policy_does_not_name_never_trains(cause: Cause) -> None:
    others = ", ".join(sorted({"drift", "quality", "bias", "upload"} - {cause}))
    decision = said(spec(f"after: [{others}]"), *MODEL, FEBRUARY, cause=cause)
    assert decision.rules == ("policy",)
    assert decision.again_at is None
    assert said(spec(f"after: [{cause}]"), *MODEL, FEBRUARY, cause=cause).retrain


def test_a_person_cannot_train_on_nothing() -> None:
    decision = said(spec(), cause="hand", forced=True)
    assert decision.rules == ("data",)
    assert "noria upload flight-delay" in decision.reasons[0]


# --- single flight


@pytest.mark.parametrize("cause", ["first", "upload", "rows", "drift", "schedule", "hand"])
def test_one_training_at_a_time_whoever_asks(cause: Cause) -> None:
    model = spec("after: [drift, upload], budget: 9 per week, cooldown: 1s")
    running = [granted("two", HOUR / 30), began("two", HOUR / 30, "january")]
    for history in (running, running[:1]):  # granted and not begun is under way too
        decision = said(model, *MODEL, *history, FEBRUARY, cause=cause, forced=cause == "hand")
        assert decision.rules == ("flight",)
        assert "under way since 2026-11-21 11:58" in decision.reasons[0]
        assert decision.again_at == (None if cause == "hand" else NOW + LOOK_AGAIN + SECOND)


def test_a_failed_training_is_over_and_so_is_one_that_nobody_ever_heard_of_again() -> None:
    model = spec("after: [drift], cooldown: 1s")
    assert said(model, *MODEL, granted("two", DAY), began("two", DAY, "january"), failed("two", DAY), FEBRUARY).retrain
    lost = LOST + 3 * model.train.timeout
    assert not said(model, *MODEL, granted("two", lost), began("two", lost - SECOND, "january"), FEBRUARY).retrain
    assert said(model, *MODEL, granted("two", lost), began("two", lost, "january"), FEBRUARY).retrain


# --- the latest window


def window(ago: timedelta, *breached: str, not_enough: tuple[str, ...] = (), kind: Kind = Kind.MONITORED) -> Entry:
    return entry(kind, f"window {ago}", ago, breached=list(breached), not_enough=list(not_enough))


@pytest.mark.parametrize(
    ("windows", "trains"),
    [
        ([], True),
        ([window(HOUR, "drift")], True),
        ([window(2 * HOUR, "drift"), window(HOUR)], False),
        ([window(2 * HOUR), window(HOUR, "drift")], True),
        ([window(2 * HOUR, "drift"), window(HOUR, not_enough=("drift",))], True),
        ([window(2 * HOUR), window(HOUR, not_enough=("drift",))], False),
        ([window(2 * HOUR, "drift"), window(HOUR, "prediction-drift")], False),
    ],
    ids=["none", "breached", "over", "breached anew", "too few since", "over, and too few since", "of another monitor"],
)
def test_the_latest_window_decides_whether_an_alarm_still_speaks(windows: list[Entry], *, trains: bool) -> None:
    decision = said(spec(), *MODEL, FEBRUARY, *windows)
    assert decision.retrain is trains
    if not trains:
        assert decision.rules == ("latest",)
        assert decision.again_at == NOW + spec().monitor.every + SECOND


def test_a_window_older_than_the_alarm_says_nothing_against_it() -> None:
    """The function that measures tells its metrics first and the ledger then."""
    history = [*MODEL, FEBRUARY, window(HOUR)]
    assert decide(spec(), history, ask(raised=HOUR / 2), now=NOW).retrain
    assert not decide(spec(), history, ask(raised=2 * HOUR), now=NOW).retrain


def test_labels_speak_of_quality_and_not_of_drift() -> None:
    model = spec("after: [drift, quality]")
    calm = window(HOUR, kind=Kind.LABELS_JOINED)
    history = [*MODEL, FEBRUARY, window(2 * HOUR, "drift", "quality"), calm]
    assert decide(model, history, ask(), now=NOW).retrain
    assert decide(model, history, ask("quality", name="quality"), now=NOW).rules == ("latest",)


def deployed(package: str, ago: timedelta) -> Entry:
    return entry(Kind.DEPLOYED, f"deployment {package}", ago, package=package)


def test_labels_of_a_replaced_version_do_not_train_its_successor() -> None:
    """An alarm of labels stays raised until others come, days later; and windows without labels say nothing of it."""
    model, nothing = spec("after: [quality]"), ("quality",)
    history = [
        *MODEL,
        deployed("1", 20 * DAY),
        window(3 * DAY, "quality", kind=Kind.LABELS_JOINED),
        *trained("two", 3 * DAY, "january", cause="quality"),
        deployed("2", 2 * DAY),
        window(DAY, not_enough=nothing),
        accepted("february", HOUR),
    ]
    decision = decide(model, history, ask("quality", name="quality"), now=NOW)
    assert decision.rules == ("latest",)
    assert "nothing is known yet of the version that is live now" in decision.reasons[0]
    assert decision.again_at == NOW + model.monitor.every + SECOND
    assert decide(model, history, ask("quality", name="quality", raised=2.5 * DAY), now=NOW).rules == ("latest",)
    own = window(HOUR, "quality", kind=Kind.LABELS_JOINED)
    again = [*history, own, window(HOUR / 2, not_enough=nothing)]
    assert decide(model, again, ask("quality", name="quality"), now=NOW).retrain
    traffic = deployed("2", HOUR / 2)  # of which only the share of the requests is new
    assert decide(model, [*again, traffic], ask("quality", name="quality"), now=NOW).retrain


@pytest.mark.parametrize(
    ("raised", "windows", "trains"),
    [
        (None, [], False),
        (2 * HOUR, [], False),
        (HOUR / 2, [], False),
        (None, [window(HOUR / 4, "drift")], True),
        (None, [window(HOUR / 4, not_enough=("drift",))], False),
        (HOUR / 8, [window(HOUR / 4)], True),
    ],
    ids=["still raised", "heard late", "raised by what came before", "breached anew", "too few yet", "not told yet"],
)
def test_windows_of_a_replaced_version_do_not_train_its_successor(
    raised: timedelta | None, windows: list[Entry], *, trains: bool
) -> None:
    history = [*MODEL, FEBRUARY, deployed("1", DAY), window(2 * HOUR, "drift"), deployed("2", HOUR), *windows]
    decision = decide(spec(), history, ask(raised=raised), now=NOW)
    assert decision.retrain is trains
    assert decision.rules == (() if trains else ("latest",))


# --- new rows


def test_without_new_data_an_alarm_waits_for_the_next_window_and_a_schedule_for_data() -> None:
    decision = said(spec(), *MODEL)
    assert decision.rules == ("rows",)
    assert "no data has arrived" in decision.reasons[0]
    assert decision.again_at == NOW + spec().monitor.every + SECOND
    assert said(spec(), *MODEL, cause="schedule").again_at is None


def test_fewer_rows_than_wanted_are_not_enough() -> None:
    model = spec("after: [drift], min_new_rows: 1500")
    assert said(model, *MODEL, FEBRUARY).reasons == (
        "only 1,000 new rows of 1,500 that are wanted (retrain.min_new_rows)",
    )
    assert said(model, *MODEL, FEBRUARY, accepted("march", HOUR, rows=500)).retrain


def test_a_dataset_that_came_while_the_last_training_began_is_new() -> None:
    assert said(spec(), accepted("february", 31 * DAY), *MODEL).retrain


@pytest.mark.parametrize(("refused", "trains"), [(True, False), (False, True)])
def test_a_training_that_broke_has_learnt_nothing_and_a_refused_one_has(*, refused: bool, trains: bool) -> None:
    two = [
        granted("two", 2 * DAY),
        began("two", 2 * DAY, "january", "february"),
        failed("two", 2 * DAY, refused=refused),
    ]
    assert said(spec(), *MODEL, FEBRUARY, *two).retrain is trains


def test_a_training_that_broke_and_then_succeeded_by_a_retry_has_learnt() -> None:
    two = [granted("two", 2 * DAY), began("two", 2 * DAY, "january", "february"), failed("two", 2 * DAY)]
    assert said(spec(), *MODEL, FEBRUARY, *two, succeeded("two", DAY)).rules == ("rows",)


def test_what_a_retry_came_to_is_recorded_beside_the_failure(tmp_path: Path) -> None:
    """SageMaker's retry keeps the execution's name; somebody may use it whatever the page says."""
    world, model = TrainingWorld(), machine.spec("alarms")
    training = machine.Training(world, model, tmp_path)
    world.start_pipeline_execution(PipelineName=GROUP, ClientRequestToken="t" * 32)
    (execution,) = world.executions.values()
    world.finish("failed", heard=True)
    training.receive(world.messages.pop())
    execution.end = None
    world.finish("succeeded", heard=True)
    training.receive(world.messages.pop())
    told = {entry.kind: entry.subject for entry in training.entries()}
    assert told == {Kind.TRAINING_FAILED: execution.arn, Kind.TRAINING_SUCCEEDED: execution.arn}


# --- cooldown, budget


def test_cooldown_ends_after_the_last_retraining() -> None:
    history = [*MODEL, *trained("two", 4 * HOUR, "january"), FEBRUARY]
    decision = said(spec(), *history)
    assert decision.rules == ("cooldown",)
    assert decision.again_at == NOW + 20 * HOUR + SECOND
    assert said(spec(), *history, now=NOW + 20 * HOUR).retrain


def test_the_first_training_is_no_retraining() -> None:
    first = [accepted("january", HOUR), *trained("first", HOUR, "january", cause="first")]
    assert said(spec("after: [drift], budget: 1 per week"), *first, accepted("february", HOUR / 2)).retrain


def test_who_has_no_reason_to_give_lists_none() -> None:
    assert said(spec("after: [drift]"), accepted("january", HOUR), cause="first").sentence == "trains."


def test_trainings_that_follow_a_first_one_that_ended_are_retrainings_though_there_is_no_model() -> None:
    """Gates that refuse every candidate would else train after each upload, for good."""
    model = spec("after: [], cooldown: 24h, budget: 2 per week, hours: 5, min_new_rows: 9000")

    def tried(name: str, ago: timedelta, *, hours: float = 0.1) -> list[Entry]:
        grant = [granted(name, ago, "first"), began(name, ago, name), failed(name, ago, refused=True, hours=hours)]
        return [accepted(name, ago), *grant]

    begun = [accepted("a", HOUR), *tried("a", HOUR)[1:3]]
    assert said(model, *begun, FEBRUARY, cause="first").rules == ("flight",), "none has ended"
    one = tried("a", HOUR)
    assert said(model, *one, FEBRUARY, cause="first").retrain, "the first is none"
    two = [*tried("a", 6 * DAY), *tried("b", HOUR), FEBRUARY]
    decision = said(model, *two, cause="first")
    assert (decision.rules, decision.again_at) == (("cooldown",), NOW + 23 * HOUR + SECOND)
    assert said(model, *two, cause="first", now=NOW + 23 * HOUR).retrain
    three = [*tried("a", 6 * DAY), *tried("b", 5 * DAY), *tried("c", 2 * DAY), FEBRUARY]
    decision = said(model, *three, cause="first")
    assert (decision.rules, decision.again_at) == (("runs",), NOW + 2 * DAY + SECOND)
    long = [*tried("a", 3 * DAY, hours=2), *tried("b", 2 * DAY, hours=2), FEBRUARY]
    decision = said(model, *long, cause="first")
    assert (decision.rules, decision.again_at) == (("hours",), NOW + 4 * DAY + SECOND)


def test_the_budget_is_free_again_when_the_oldest_retraining_leaves_the_period() -> None:
    history = [*MODEL, *trained("two", 6 * DAY, "january"), *trained("three", 2 * DAY, "january"), FEBRUARY]
    decision = said(spec(), *history)
    assert decision.rules == ("runs",)
    assert decision.reasons == ("the budget of 2 per week is spent until 2026-11-22 12:00 UTC",)
    assert decision.again_at == NOW + DAY + SECOND
    assert said(spec(), *history, now=NOW + DAY).retrain


def test_a_budget_of_nothing_never_ends() -> None:
    decision = said(spec("after: [drift], budget: 0 per week"), *MODEL, FEBRUARY)
    assert (decision.retrain, decision.again_at) == (False, None)


def test_a_person_is_bound_by_the_budget_unless_they_insist_and_by_nothing_that_waits() -> None:
    busy = [*trained("two", HOUR, "january"), *trained("three", HOUR, "january")]
    model = spec("after: [], budget: 2 per week, min_new_rows: 99, quiet: 11:00-13:00")
    assert said(model, *MODEL, *busy[:3], cause="hand").retrain
    decision = said(model, *MODEL, *busy, cause="hand")
    assert decision.rules == ("runs",)
    assert decision.again_at is None, "a person looks for themselves"
    forced = said(model, *MODEL, *busy, cause="hand", forced=True)
    assert forced.retrain
    assert forced.numbers["runs"] == 2


# --- instance-hours


def test_hours_are_what_trainings_took_whoever_asked_and_the_next_run_must_fit() -> None:
    model = spec("after: [drift], budget: 9 per week, hours: 2, cooldown: 1s")
    history = [
        accepted("january", 6 * DAY),
        *trained("first", 6 * DAY, "january", cause="first", hours=0.7),
        *trained("two", 3 * DAY, "january", cause="hand", hours=0.5),
        FEBRUARY,
    ]
    decision = said(model, *history)
    assert decision.retrain, "1.2 spent and 0.7 to come are less than 2"
    more = [*history, *trained("three", 2 * DAY, "january", hours=0.2)]
    decision = said(model, *more)
    assert decision.rules == ("hours",)
    assert (decision.numbers["hours"], decision.numbers["next_hours"]) == (1.4, 0.7)
    # Fits when the first one's 0.7 are a week old: it ended a quarter of an hour after it began.
    fits = NOW + DAY + HOUR / 4
    assert decision.again_at == fits + SECOND
    assert said(model, *more, now=fits).retrain
    assert said(model, *more, cause="hand").rules == ("hours",)
    assert said(model, *more, cause="hand", forced=True).retrain


def test_a_run_that_never_fits_is_never_looked_at_again() -> None:
    decision = said(spec("after: [drift], hours: 0.05"), *MODEL, FEBRUARY)
    assert decision.again_at is None
    assert "never fits" in decision.reasons[0]


def test_the_next_run_is_expected_to_take_as_long_as_the_longest_recent_whole_one() -> None:
    assert expected_hours(spec(), []).hours == 1, "the timeout of the shipped model"
    assert expected_hours(spec(), [failed("broke", DAY, hours=0.01)]).source == "train.timeout"
    runs = [succeeded(f"{n}", DAY, hours=hours) for n, hours in enumerate((9.0, 0.1, 0.2, 0.1, 0.1))]
    assert expected_hours(spec(), runs).hours == 9
    assert expected_hours(spec(), [*runs, failed("refused", DAY, refused=True, hours=0.3)]).hours == 0.3


# --- quiet hours


@pytest.mark.parametrize(
    ("hours", "at", "until"),
    [
        ("22:00-06:00", "21T21:59:59", None),
        ("22:00-06:00", "21T22:00:00", "22T06:00:00"),
        ("22:00-06:00", "22T05:59:59", "22T06:00:00"),
        ("22:00-06:00", "22T06:00:00", None),
        ("09:30-17:00", "21T09:29:59", None),
        ("09:30-17:00", "21T16:59:59", "21T17:00:00"),
        ("09:30-17:00", "21T17:00:00", None),
    ],
)
def test_quiet_hours_are_of_each_day_and_over_midnight(hours: str, at: str, until: str | None) -> None:
    quiet = Quiet.model_validate(hours)
    end = datetime.fromisoformat(f"2026-11-{until}+00:00") if until else None
    assert quiet.until(datetime.fromisoformat(f"2026-11-{at}+00:00")) == end
    assert quiet.until(datetime.fromisoformat(f"2026-11-{at}+00:00").astimezone()) == end


@pytest.mark.parametrize("cause", ["first", "upload", "rows", "drift", "schedule"])
def test_nothing_begins_by_itself_in_quiet_hours_and_is_looked_at_when_they_end(cause: Cause) -> None:
    model = spec("after: [drift, upload], quiet: 11:00-13:30")
    decision = said(model, *MODEL, FEBRUARY, cause=cause)
    assert decision.rules == ("quiet",)
    assert decision.again_at == NOW + 1.5 * HOUR + SECOND
    assert said(model, *MODEL, FEBRUARY, cause=cause, now=NOW + 1.5 * HOUR).retrain
    assert said(model, *MODEL, FEBRUARY, cause="hand").retrain


# --- a dry run


@pytest.mark.parametrize("cause", ["first", "upload", "rows", "drift", "schedule", "hand"])
def test_a_dry_run_decides_and_trains_nothing(cause: Cause) -> None:
    model = spec("after: [drift, upload], dry_run: true")
    decision = said(model, *MODEL, FEBRUARY, cause=cause, forced=True)
    assert (decision.retrain, decision.would, decision.rules) == (False, True, ("dry-run",))
    assert decision.sentence.startswith("would train: ")
    assert "retrain.dry_run is set" in decision.sentence
    refused = said(model, *MODEL, granted("two", HOUR), cause=cause)
    assert not refused.would


# --- what data ask


def test_data_ask_for_the_first_model_whatever_the_policy_says() -> None:
    model = spec("after: []")
    january = accepted("january", DAY)
    assert data_asks(model, []) is None
    assert data_asks(model, [january]) == Ask(cause="first")
    broke = [granted("first", HOUR, "first"), began("first", HOUR, "january"), failed("first", HOUR)]
    assert data_asks(model, [january, *broke]) is None, "the same data would break it again"
    assert data_asks(model, [january, *broke[:2], FEBRUARY, broke[2]]) == Ask(cause="first"), "held, and no model yet"
    assert said(model, january, *broke, FEBRUARY, cause="first").retrain


def test_uploads_ask_where_the_policy_says_so_and_joined_labels_do_not() -> None:
    assert data_asks(spec("after: [upload]"), [*MODEL, FEBRUARY]) == Ask(cause="upload")
    assert data_asks(spec("after: [upload]"), [*MODEL, labels(1, 300)]) is None
    assert data_asks(spec("after: [drift]"), [*MODEL, FEBRUARY]) is None
    assert said(spec(), *MODEL, labels(1, 300)).retrain, "but their rows are new rows"


def labels(number: int, rows: int, day: str = "2026-11-20") -> Entry:
    """The joined labels of a day's predictions, as they were when the so many-th file of labels had come."""
    key = f"flight-delay/incoming/labelled/{day}/{number:012}-state.parquet"
    return accepted(f"{day} {number}", HOUR, rows=rows, origin="labels", key=key)


def test_labels_of_a_day_count_once_however_often_they_come() -> None:
    twice = [labels(1, 300), labels(2, 400), labels(1, 50, "2026-11-21")]
    assert said(spec(), *MODEL, *twice).numbers["new_rows"] == 450
    learnt = [*MODEL, *twice[:2], *trained("two", 3 * DAY, "january", "2026-11-20 2")]
    assert said(spec(), *learnt).rules == ("rows",), "what a later one holds is not new"
    assert said(spec(), *learnt, labels(3, 430)).numbers["new_rows"] == 30


def test_enough_new_rows_ask_whatever_the_policy_says() -> None:
    model = spec("after: [], new_rows: 1500")
    assert data_asks(model, [*MODEL, FEBRUARY]) is None
    history = [*MODEL, FEBRUARY, labels(1, 500)]
    assert data_asks(model, history) == Ask(cause="rows")
    assert said(model, *history, cause="rows").retrain
    two = [granted("two", HOUR / 2, "rows"), began("two", HOUR / 2, "january", "february", "2026-11-20 1")]
    assert data_asks(model, [*history, *two, succeeded("two", HOUR / 4)]) is None


def test_the_shipped_model_is_governed() -> None:
    shipped = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml")
    assert "drift" in shipped.retrain.after
