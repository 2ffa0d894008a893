"""The demo's closing page says what its figures mean."""

from unittest.mock import Mock

import pytest

from local.demo import page
from local.demo.story import Listener, Story


@pytest.mark.parametrize("limit", [0.1, 0.25])
def test_the_limit_of_drift_is_that_of_the_spec(limit: float) -> None:
    story = Story(listener=Mock(spec=Listener), psi={"temp": 0.3, "humid": 0.2, "hour": 0.05})
    shown = page.render(story, seconds=1, drift_limit=limit)
    assert f"above {limit:g} a feature has drifted" in shown
    assert shown.count("fill='var(--sun)'") == sum(psi > limit for psi in story.psi.values())
