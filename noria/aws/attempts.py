"""What cannot be measured is logged, and must not silence the rest."""

from collections.abc import Callable
from typing import TypeVar

from noria.aws.telemetry import logger
from noria.monitors import Unknown

T = TypeVar("T")


def attempt(what: str, measure: Callable[[], T | Unknown]) -> T | Unknown:
    """What is measured, or that it could not be."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other monitors must be heard
        logger.exception("could not measure", what=what)
        return Unknown(reason=f"{what} could not be measured: {type(error).__name__}: {error}", failed=True)
