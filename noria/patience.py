"""How long, and how often, until what a reaction failed on is tried again.

| what failed                   | is tried again after         | then                           |
|-------------------------------|------------------------------|--------------------------------|
| what may pass                 | 1, 4, 16 and 64 minutes      | the dead-letter queue, at once |
| what waiting does not mend    | 2, 4, 8 and 16 seconds       | the same                       |

Each wait is drawn from its second half, so that what failed together does not come back together.
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

import random

ATTEMPTS = 5
"""How often a message is tried before it goes to the dead-letter queue."""


def wait(failures: int, *, hopeless: bool = False, chance: float | None = None) -> int:
    """Seconds until a message is shown again after it failed so often; `chance`, from 0 to 1, says where in the range.

    The last time it is none: SQS moves a message to the dead letters when it would show it once more.
    """
    if failures >= ATTEMPTS:
        return 0
    longest = 2.0**failures if hopeless else 60.0 * 4 ** (failures - 1)
    drawn = random.random() if chance is None else chance  # noqa: S311 - chance enough to spread waits
    return round(longest * (1 + drawn) / 2)
