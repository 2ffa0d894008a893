"""What the real templates cost, and that no type of theirs is left out."""

import pytest

from noria.cost import FREE, Charge, Load, Occasion, bill, usages
from noria.prices import prices
from noria.template import Assembly as Templates
from tests.infrastructure.assembly import Assembly

GOAL = 3.00
QUEUES = 1.85
"""Of which so much is the polling of fifteen queues, after the free million: docs/cost.md says why they stay."""


def charges(assembly: Assembly, load: Load) -> list[Charge]:
    return bill(usages(Templates.read(assembly.directory), load), prices("eu-west-1"))


@pytest.mark.parametrize("env", ["local", "prod", "ways"])
def test_every_type_and_every_instance_has_a_price_or_is_free(env: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    charged = charges(assembly, Load())
    assert {Occasion.IDLE, Occasion.LIVE, Occasion.UPLOADS, Occasion.TRAININGS} <= {each.occasion for each in charged}
    types = {resource.type for template in assembly.templates.values() for resource in template.resources}
    assert types - FREE >= {"AWS::KMS::Key", "AWS::CloudWatch::Alarm", "AWS::SageMaker::EndpointConfig"}


def test_an_environment_without_endpoints_costs_what_we_say_it_does(ways: Assembly) -> None:
    """Of dev's settings, without what each model adds: below the goal but for the polling of queues, which is named."""
    read = Templates.read(ways.directory)
    used = [u for u in usages(read, Load(live=False)) if u.occasion is Occasion.IDLE and u.model is None]
    by_price: dict[str, float] = {}
    for charge in bill(used, prices("eu-west-1")):
        by_price[charge.price] = by_price.get(charge.price, 0.0) + charge.usd
    polling = by_price.pop("sqs.request")
    assert polling < QUEUES, by_price
    assert sum(by_price.values()) < GOAL - 0.9, by_price


def test_nothing_but_the_endpoints_is_dear(ways: Assembly) -> None:
    """A model that is deployed and does not answer costs a few dollars, its alarms and dashboard."""
    idle: dict[str, float] = {}
    for charge in charges(ways, Load(live=False, uploads=0, trainings=0, predictions=0)):
        if charge.model:
            idle[charge.model] = idle.get(charge.model, 0.0) + charge.listed
    assert len(idle) == len({t.model for t in Templates.read(ways.directory).templates if t.model})
    assert all(dollars < 8 for dollars in idle.values()), idle
