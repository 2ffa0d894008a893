"""What Application Auto Scaling knows: targets, their policies and scheduled actions, and what was done about them."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from local.sagemaker.api import Document

# How many activities of a target are kept; AWS keeps those of the last six weeks.
ACTIVITIES = 100

Key = tuple[str, str]
"""Resource id and scalable dimension."""


@dataclass
class ScalingOut:
    """The scale-out that began a cool-down: when (AWS seconds), and from how many."""

    moment: float
    capacity: int


@dataclass
class Policy:
    """A scaling policy; `alarms` are those that AWS makes for target tracking, by their names."""

    name: str
    arn: str
    type: str
    config: Document
    created: datetime
    alarms: list[Document] = field(default_factory=list)
    scaled_out: ScalingOut | None = None
    scaled_in: float | None = None


@dataclass
class Action:
    """A scheduled action; `due` is the next moment, None if there is none any more."""

    name: str
    arn: str
    schedule: str
    timezone: str | None
    start: datetime | None
    end: datetime | None
    bounds: Document
    created: datetime
    due: datetime | None


@dataclass
class Target:
    """A scalable target; `suspended` is its SuspendedState, `overdue` why it has yet to come within its bounds."""

    resource_id: str
    dimension: str
    arn: str
    least: int
    most: int
    role_arn: str
    suspended: dict[str, bool]
    created: datetime
    overdue: str | None = None
    policies: dict[str, Policy] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    activities: deque[Document] = field(default_factory=lambda: deque(maxlen=ACTIVITIES))

    @property
    def endpoint(self) -> str:
        return self.resource_id.split("/")[1]

    @property
    def variant(self) -> str:
        return self.resource_id.split("/")[3]


class State:
    """Whatever is registered, and the lock to hold while looking at it or changing it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tags: dict[str, dict[str, str]] = {}
        self._targets: dict[Key, Target] = {}

    def __iter__(self) -> Iterator[Target]:
        with self.lock:
            return iter(list(self._targets.values()))

    def find(self, request: Document) -> Target | None:
        """The target that a request names."""
        key = (str(request.get("ResourceId")), str(request.get("ScalableDimension")))
        with self.lock:
            return self._targets.get(key)

    def add(self, target: Target) -> None:
        with self.lock:
            self._targets[target.resource_id, target.dimension] = target

    def remove(self, target: Target) -> None:
        with self.lock:
            self._targets.pop((target.resource_id, target.dimension), None)
            self.tags.pop(target.arn, None)
