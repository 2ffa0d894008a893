"""The moment before each event, reaction by reaction: a world of its own for each model that is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.breaking.delivery import queued
from tests.integration.reactions import test_retraining as retraining
from tests.integration.reactions import test_training as training
from tests.integration.reactions import test_uploads as uploads
from tests.integration.reactions.place import Place
from tests.integration.reactions.served import Served


@dataclass(frozen=True)
class Moment:
    """What is to be delivered, in the order in which it happened, and how to wait for what that begins."""

    model: str
    messages: tuple[dict[str, Any], ...]
    settle: Callable[[], object] = field(default=lambda: None)


@dataclass(frozen=True)
class Scene:
    """One kind of event of one reaction. `hidden` is how long a message that was not done stays hidden."""

    reaction: str
    what: str
    before: Callable[[Place], Moment]
    hidden: timedelta = timedelta(minutes=6)

    @property
    def name(self) -> str:
        return f"{self.reaction}: {self.what}"


SCENES: list[Scene] = []


def scene(reaction: str, what: str, **more: Any) -> Callable[[Callable[[Place], Moment]], Callable[[Place], Moment]]:
    def add(before: Callable[[Place], Moment]) -> Callable[[Place], Moment]:
        SCENES.append(Scene(reaction, what, before, **more))
        return before

    return add


DATA_HIDDEN = timedelta(minutes=90)  # six times what functions with data work may take


# --- uploads


def _uploaded(place: Place, **changes: Any) -> Moment:
    spec = place.model()
    key, body = f"{spec.model}/incoming/january.csv", uploads.table(spec, **changes)
    event = place.uploaded(key, place.put(key, body), len(body))
    return Moment(spec.model, (queued(event),))


@scene("validate_upload", "a good file", hidden=DATA_HIDDEN)
def good_file(place: Place) -> Moment:
    return _uploaded(place)


@scene("validate_upload", "a broken file", hidden=DATA_HIDDEN)
def broken_file(place: Place) -> Moment:
    return _uploaded(place, hour="25")


# --- trainings


@scene("request_retraining", "an alarm that is granted a training")
def alarm_with_data(place: Place) -> Moment:
    spec = place.model()
    retraining.accept(place, spec, "february")
    return Moment(spec.model, (queued(retraining.alarm(place, spec)),))


@scene("request_retraining", "an alarm that is refused one")
def alarm_without_data(place: Place) -> Moment:
    spec = place.model()
    return Moment(spec.model, (queued(retraining.alarm(place, spec)),))


@scene("start_training", "a grant")
def grant(place: Place) -> Moment:
    spec = place.model()
    training.pipeline(place, spec)
    place.put(f"{spec.model}/runs/one/evaluation.json", training.evaluation(passed=True))
    training.dataset(place, spec, 1)
    return Moment(spec.model, (queued(training.granted(place, spec)),), lambda: _ended(place, spec))


def _ended(place: Place, spec: Any) -> None:
    for execution in training.executions(place, spec):
        training.ended(place, execution["PipelineExecutionArn"])


# --- serving


@scene("deploy_model", "an approval")
def approval(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    event = served.decide(served.register(), "Approved")
    return Moment(served.model, (queued(event),), served.stack)
