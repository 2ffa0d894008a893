"""Whom an error belongs to, while two fleets answer under one name: a probe's questions on a fake SageMaker."""

import io
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.probe_deployment import handler
from lambdas.probe_deployment.handler import Newcomer, Questions, Unanswered
from noria.aws.probes import ProbedEndpoint

OLD, NEW = "0" * 64, "1" * 64
ROWS = [{"x": x} for x in range(64)]


class ModelError(ClientError):
    pass


@dataclass
class Fleets:
    """The new fleet gets `share` of the requests, and refuses rows in `refused`; the old one those in `outdated`.

    The first `stumbles` requests are answered by nobody.
    """

    share: float
    refused: frozenset[int] = frozenset()
    outdated: frozenset[int] = frozenset()
    stumbles: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    exceptions: Any = field(default_factory=lambda: type("Exceptions", (), {"ModelError": ModelError}))

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        rows = json.loads(request["Body"])["instances"]
        is_new = self.chance.random() < self.share
        self.stumbles -= 1
        if self.stumbles >= 0 or any(row["x"] in (self.refused if is_new else self.outdated) for row in rows):
            raise ModelError({"Error": {"Code": "ModelError", "Message": "400"}}, "InvokeEndpoint")
        body = json.dumps({"predictions": [{"prediction": row["x"]} for row in rows]}).encode()
        return {"CustomAttributes": f"noria-bundle={NEW if is_new else OLD}", "Body": io.BytesIO(body)}


EVERYTHING = frozenset(range(64))


def questions(fleets: Fleets, *, alone: bool = False, baking: bool = True) -> Questions:
    newcomer = Newcomer(
        config="c",
        variant="champion",
        package="two",
        before="one",
        since=None,
        until=None,
        alone=alone,
        baking=baking,
        guarded=not alone,
        returns=False,
        target=None,
    )
    fake: Any = fleets
    return Questions(endpoint=ProbedEndpoint(name="e", client=fake, runtime=fake), newcomer=newcomer, bundle=NEW)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "PAUSE", 0)


@pytest.mark.parametrize("share", [0.1, 0.33, 1.0])
def test_a_version_that_refuses_everything_is_found_out_whatever_its_share(share: float) -> None:
    refusing = Fleets(share=share, refused=EVERYTHING)
    assert [questions(refusing).ask(ROWS).predictions for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("share", [0.1, 0.33, 1.0])
def test_a_version_that_answers_is_heard_whatever_its_share(share: float) -> None:
    answering = Fleets(share=share)
    assert all(questions(answering).ask(ROWS).bundle == NEW for _ in range(20))


@pytest.mark.parametrize("share", [0.1, 0.33])
def test_the_old_fleet_s_errors_are_not_the_new_one_s(share: float) -> None:
    """The old version does not take what the new one was trained on."""
    changed = Fleets(share=share, outdated=EVERYTHING)
    assert all(questions(changed).ask(ROWS).bundle == NEW for _ in range(20))


def test_errors_say_nothing_of_a_version_that_takes_no_traffic_yet() -> None:
    with pytest.raises(Unanswered):
        questions(Fleets(share=0, outdated=EVERYTHING), baking=False).ask(ROWS)


def test_what_only_the_old_fleet_answers_is_no_answer() -> None:
    with pytest.raises(Unanswered):
        questions(Fleets(share=0)).ask(ROWS)


def test_a_version_that_is_alone_errs_only_if_it_does_so_again_and_again() -> None:
    assert questions(Fleets(share=1, refused=EVERYTHING), alone=True).ask(ROWS).predictions is None
    assert questions(Fleets(share=1, stumbles=2), alone=True).ask(ROWS).bundle == NEW


@pytest.mark.parametrize("share", [0.33, 1.0])
def test_once_heard_a_version_is_asked_about_each_row_that_it_refuses(share: float) -> None:
    asked = questions(Fleets(share=share, refused=frozenset({3, 40})))
    asked.ask(ROWS[:2])
    assert [row["x"] for row, answer in zip(ROWS, asked.answers(ROWS), strict=True) if not answer] == [3, 40]


def test_when_time_is_up_what_was_answered_is_kept() -> None:
    asked = questions(Fleets(share=1.0, refused=frozenset({40})))
    asked.ask(ROWS[:2])
    answered = asked.ask

    def until_the_end(rows: Any) -> Any:
        if rows[0]["x"] >= 32:
            raise Unanswered
        return answered(rows)

    asked.ask = until_the_end  # type: ignore[method-assign]
    assert asked.answers(ROWS) == [{"prediction": x} for x in range(32)]
