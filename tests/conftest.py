"""Several workers run the tests side by side; what shares an account, a synthesis or a port stays with one of them."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the workers read the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take whole groups: reactions share one local cloud, templates one synthesis, others their file."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.path.relative_to(TESTS))))


def _group(path: Path) -> str:
    shared = ("infrastructure", "integration/reactions", "integration/front_door")
    return next((folder for folder in shared if path.as_posix().startswith(folder)), path.as_posix())
