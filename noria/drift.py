"""How far a window is from the baseline: pure functions of two profiles."""

from pydantic import BaseModel, ConfigDict

from noria.profile import ColumnProfile, Profile
from noria.spec import ModelSpec


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drift(Part):
    """One column of the window against the baseline. Shares are of rows, from 0 to 1."""

    psi: float
    js: float
    missing_baseline: float
    missing_window: float
    new_categories: tuple[str, ...] = ()
    drifted: bool

    @property
    def missing_change(self) -> float:
        return self.missing_window - self.missing_baseline


class Report(Part):
    """A monitored window; `drifted` names features, most drifted first.

    When there are not enough rows to say anything, `features` and `drifted` are empty, `prediction` and `max_psi` None.
    """

    model: str
    enough: bool
    rows: int
    baseline_rows: int
    malformed: int
    threshold: float
    features: dict[str, Drift]
    prediction: Drift | None
    drifted: tuple[str, ...]
    max_psi: float | None
    summary: str


def psi(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Population stability index, 0 and up."""
    raise NotImplementedError


def jensen_shannon(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Jensen–Shannon distance with base-2 logarithms, from 0 to 1."""
    raise NotImplementedError


def compare(baseline: Profile, window: Profile, spec: ModelSpec) -> Report:
    raise NotImplementedError
