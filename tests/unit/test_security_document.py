"""docs/security.md names a test for each threat: one that exists, and each kind of threat has some."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROW = re.compile(
    r"^\| (?P<kind>[STRIDE]) \| (?P<threat>[^|]+) \| (?P<control>[^|]+) \| `(?P<test>[^`|]+)` \|$", re.MULTILINE
)


def test_every_threat_names_a_control_and_a_test_that_exists() -> None:
    document = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    rows = list(ROW.finditer(document))
    threats = document.partition("## Threats")[2].partition("## Secrets")[0]
    assert len(rows) == sum(line.startswith("| ") for line in threats.splitlines()) - 1  # the header
    assert {row["kind"] for row in rows} == set("STRIDE")
    for row in rows:
        file, _, name = row["test"].partition("::")
        assert re.search(rf"^def {name}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), row["test"]
