"""Every way to go live, under a steady load of 200 requests a second: no good deployment fails one of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from local.demo.faults import Fault
from local.demo.packages import register
from local.demo.scenes import Play
from local.demo.world import World
from local.load import Load, Result, steady
from noria.ledger import Entry, Kind
from tests.e2e.test_3_command import run

PER_SECOND = 200
BAD_ENDS = [Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.DEPLOYMENT_REFUSED, Kind.CHALLENGER_ROLLED_BACK]
CANARY_SHARE = 1 / 3


@pytest.fixture(scope="module")
def first(play: Play) -> str:
    """The package that the other models' versions are copies of."""
    if not play.live:
        pytest.fail("no model is live: test_january_goes_live failed before")
    return play.live


@pytest.fixture(scope="module")
def bodies(play: Play) -> list[bytes]:
    return [json.dumps({"instances": [play.instance(row)]}).encode() for row in play.sample(8)]


GOOD: list[Result] = []
"""The load over each good deployment."""


@contextmanager
def loaded(world: World, bodies: list[bytes], what: str) -> Iterator[Load]:
    """Good deployments under load: every request that was due is answered well."""
    with steady(world.cloud.environment, world.endpoint, bodies, per_second=PER_SECOND) as load:
        yield load
    GOOD.append(load.result)
    print(f"{what}: {load.result}")  # noqa: T201
    assert load.result.failures == [], str(load.result)


def of(world: World, model: str) -> World:
    return replace(world, model=model)


def go_live(world: World, package: str, *, patience: float = 120) -> Entry:
    mark = world.last_entry()
    world.noria("approve", package, "--reason", "as good as the one before")
    return world.wait_for(
        Kind.DEPLOYED,
        after=mark,
        where=lambda entry: entry.details["package"] == package,
        never=BAD_ENDS,
        patience=patience,
    )


def enough(load: Load, requests: int) -> bool:
    return len(load.result.sent) >= requests


def noria(world: World, models: str, *arguments: str) -> None:
    world.noria(*arguments, "--models", models, "--reason", "an end-to-end test")


@pytest.mark.parametrize("model", ["flight-delay", "linear", "rolling"])
def test_a_good_version_goes_live_without_a_failed_request(
    world: World, first: str, bodies: list[bytes], model: str
) -> None:
    at = of(world, model)
    if model != "flight-delay":
        go_live(at, register(at, first))
    after = register(at, first)
    with loaded(at, bodies, model) as load:
        deployed = go_live(at, after)
    assert deployed.details["package"] == after
    assert load.result.bundles.total() > 0


def test_an_a_b_begins_moves_and_ends_without_a_failed_request(
    world: World, first: str, bodies: list[bytes], models: str
) -> None:
    at = of(world, "linear")
    challenger = register(at, first)
    with loaded(at, bodies, "A/B on, moved and off") as load:
        for command, percent in (
            (("traffic", at.model, "--challenger", "20", "--package", challenger), 20),
            (("traffic", at.model, "--challenger", "50"), 50),
            (("abandon", at.model), 0),
        ):
            mark = at.last_entry()
            noria(at, models, *command)
            deployed = at.wait_for(Kind.DEPLOYED, after=mark, never=BAD_ENDS)
            assert deployed.details["percent"] == percent
            seen = len(load.result.sent)
            at.wait_until("share of 900 requests", partial(enough, load, seen + 1000))
            recent = [sent.variant for sent in load.result.sent[seen + 100 :]]
            assert abs(recent.count("challenger") / len(recent) - percent / 100) < 0.07
    assert set(load.result.variants) == {"champion", "challenger"}


def test_a_shadow_answers_copies_that_nobody_sees(world: World, first: str, bodies: list[bytes], models: str) -> None:
    at = of(world, "rolling")
    shadow = register(at, first)
    with loaded(at, bodies, "shadow on and off") as load:
        for command in (("shadow", at.model, shadow), ("shadow", at.model, "--off")):
            mark = at.last_entry()
            noria(at, models, *command)
            at.wait_for(Kind.DEPLOYED, after=mark, never=BAD_ENDS)
    assert set(load.result.variants) == {"champion"}
    assert at.wait_until(
        "captured answers of the shadow", lambda: at.keys(f"{at.model}/captured/{at.endpoint}/shadow/")
    )


def test_a_progressive_version_is_promoted_by_itself(world: World, first: str, bodies: list[bytes]) -> None:
    at = of(world, "progressive")
    go_live(at, register(at, first))
    after, mark = register(at, first), at.last_entry()
    with loaded(at, bodies, "progressive"):
        at.noria("approve", after, "--reason", "step by step")
        at.wait_for(
            Kind.DEPLOYED,
            after=mark,
            where=lambda entry: entry.details["package"] == after,
            never=BAD_ENDS,
            patience=180,
        )
    shares = [entry.details["percent"] for entry in at.entries() if entry.kind is Kind.DEPLOYED and entry.number > mark]
    assert shares == [20, 50, 0]


def test_that_load_was_long_and_heavy_enough_to_mean_something() -> None:
    seconds, requests = sum(result.seconds for result in GOOD), sum(len(result.sent) for result in GOOD)
    print(f"{requests} requests in {seconds:.0f} s over good deployments, {requests / seconds:.0f}/s")  # noqa: T201
    assert seconds >= 60
    assert requests / seconds >= 0.75 * PER_SECOND  # a busy machine keeps a few of them waiting


def test_a_bad_progressive_version_is_taken_out_by_its_own_alarm(world: World, first: str, bodies: list[bytes]) -> None:
    at = of(world, "progressive")
    champion, bad, mark = at.serving_parameters()["ModelPackageArn"], register(at, first, Fault.FAILS), at.last_entry()
    with steady(at.cloud.environment, at.endpoint, bodies, per_second=PER_SECOND) as load:
        at.noria("approve", bad, "--reason", "looked fine on paper")
        at.wait_for(Kind.CHALLENGER_ROLLED_BACK, after=mark)
        at.wait_for(
            Kind.DEPLOYED, after=mark, where=lambda e: e.details["percent"] == 0 and e.details["package"] == champion
        )
    result = load.result
    print(f"bad progressive version: {result}")  # noqa: T201
    assert 0 < len(result.failures) < 0.5 * len(result.sent)
    assert at.serving_parameters()["ChallengerPackageArn"] == "none"


def test_a_bad_version_costs_no_more_than_the_canarys_share_until_it_is_noticed(
    world: World, bodies: list[bytes], play: Play
) -> None:
    at = of(world, "flight-delay")
    bad, mark = register(at, play.live, Fault.FAILS), at.last_entry()
    with steady(at.cloud.environment, at.endpoint, bodies, per_second=PER_SECOND) as load:
        at.noria("approve", bad, "--reason", "looked fine on paper")
        at.wait_for(Kind.ROLLED_BACK, after=mark)
    failed = [sent.due for sent in load.result.failures]
    assert failed
    exposed = sum(min(failed) <= sent.due <= max(failed) for sent in load.result.sent)
    share, seconds = len(failed) / exposed, max(failed) - min(failed)
    print(f"bad canary: {len(failed)} of {exposed} requests failed, {share:.1%}, for {seconds:.1f} s")  # noqa: T201
    assert share <= CANARY_SHARE


def test_a_rollback_is_one_command_and_one_update(world: World, models: str, play: Play) -> None:
    at = of(world, "linear")
    live, mark = at.serving_parameters()["ModelPackageArn"], at.last_entry()
    arguments = ("rollback", at.model, "--models", models, "--reason", "wrong prices")
    dry = run(at, *arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert at.last_entry() == mark
    assert run(at, *arguments).returncode == 0
    deployed = at.wait_for(Kind.DEPLOYED, after=mark, never=BAD_ENDS)
    assert deployed.details["package"] != live
    requested = [e for e in at.entries() if e.number > mark and e.kind is Kind.DEPLOYMENT_REQUESTED]
    assert [entry.details["cause"] for entry in requested] == ["rollback"]
