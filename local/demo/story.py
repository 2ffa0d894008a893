"""What the demo saw: scenes, what was expected of each, and the figures for the closing page."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Unexpected(Exception):
    """Something did not come out as it should; the message says what, and what was there instead."""


@dataclass
class Check:
    """One expectation of a scene, met."""

    text: str
    detail: str
    seconds: float


@dataclass
class Scene:
    number: int
    title: str
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0
    failure: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Month:
    """How the live model did on one month's flights, and how far the month is from the model's training data."""

    name: str
    rows: int
    auc: float
    max_psi: float
    drifted: tuple[str, ...]
    package: str


@dataclass(frozen=True)
class Turn:
    """Upload (or alarm) to live: how long, and how much of it was jobs and baking rather than Noria."""

    cause: str
    total: float
    jobs: float
    waiting: float

    @property
    def orchestration(self) -> float:
        return max(0.0, self.total - self.jobs - self.waiting)


@dataclass
class Traffic:
    """Requests sent while something happened to the endpoint."""

    during: str
    answered: int
    failed: int
    p95_ms: float


class Listener(Protocol):
    def scene_started(self, scene: Scene) -> None: ...
    def waiting_for(self, scene: Scene, text: str) -> None: ...
    def checked(self, scene: Scene, check: Check) -> None: ...
    def scene_ended(self, scene: Scene) -> None: ...


@dataclass
class Story:
    """The whole run. `listener` shows it while it happens."""

    listener: Listener
    started: float = field(default_factory=time.monotonic)
    scenes: list[Scene] = field(default_factory=list)
    months: list[Month] = field(default_factory=list)
    psi: dict[str, float] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    ledger: list[dict[str, object]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return bool(self.scenes) and all(scene.done and not scene.failure for scene in self.scenes)

    @contextmanager
    def scene(self, title: str) -> Iterator[Scene]:
        scene = Scene(number=len(self.scenes) + 1, title=title)
        self.scenes.append(scene)
        start = time.monotonic()
        self.listener.scene_started(scene)
        try:
            yield scene
            scene.done = True
        except Exception as error:
            scene.failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            scene.seconds = time.monotonic() - start
            self.listener.scene_ended(scene)

    def check(self, text: str, *, detail: str = "", since: float | None = None) -> None:
        scene = self.scenes[-1]
        check = Check(text=text, detail=detail, seconds=0.0 if since is None else time.monotonic() - since)
        scene.checks.append(check)
        self.listener.checked(scene, check)

    def waiting_for(self, text: str) -> None:
        self.listener.waiting_for(self.scenes[-1], text)
