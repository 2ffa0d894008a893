"""Samples as OpenMetrics writes them; all of ours are gauges.

Source: OpenMetrics 1.0 (prometheus/OpenMetrics), "Text Format": families in one piece each, a family's unit is the end
of its name, and the last line is `# EOF`.
"""

from collections.abc import Sequence
from itertools import groupby

from pydantic import BaseModel, ConfigDict

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Sample(BaseModel):
    model_config = ConfigDict(frozen=True)

    family: str
    help: str
    unit: str = ""
    labels: dict[str, str]
    value: float


def exposition(samples: Sequence[Sample]) -> str:
    """Raises ValueError where a family has no single help and unit, or two samples of one name and labels."""
    lines: list[str] = []
    for family, of_family in groupby(sorted(samples, key=lambda s: (s.family, sorted(s.labels.items()))), _family):
        members = list(of_family)
        if len({(s.help, s.unit) for s in members}) > 1 or not family.endswith(members[0].unit):
            raise ValueError(f"{family}: one help and one unit, which ends its name, not {members}")
        if len({tuple(sorted(s.labels.items())) for s in members}) < len(members):
            raise ValueError(f"{family}: two samples have the same labels")
        lines.append(f"# TYPE {family} gauge")
        if members[0].unit:
            lines.append(f"# UNIT {family} {members[0].unit}")
        lines.append(f"# HELP {family} {_escaped(members[0].help)}")
        for sample in members:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
            lines.append(f"{family}{{{labels}}} {sample.value:.12g}")
    return "\n".join([*lines, "# EOF", ""])


def _family(sample: Sample) -> str:
    return sample.family


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
