"""Least privilege, measured over all that the other tests did: no grant without its use or its reason."""

from local import privileges
from local.demo.world import World
from local.privileges import Deployment


def test_every_granted_action_is_used_or_has_its_reason(world: World, deployment: Deployment) -> None:
    measured = privileges.measure(deployment, privileges.recorded(world.cloud))
    privileges.write(measured)
    assert sum(bool(role.used) for role in measured) > len(measured) / 2
    assert {role.place: sorted(role.ungranted) for role in measured if role.ungranted} == {}
    explained = privileges.reasons()
    left = {role.place: sorted(role.unexplained(explained)) for role in measured}
    assert {place: actions for place, actions in left.items() if actions} == {}
