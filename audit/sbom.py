"""`python -m audit.sbom`: what Noria is made of, as CycloneDX in `.noria/sbom/`; of the same locks the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CYCLONEDX = REPOSITORY / ".noria" / "audit" / "bin" / "cyclonedx-py"
OUT = REPOSITORY / ".noria" / "sbom"
LOCKS = {
    "tools": "requirements.lock",
    "container": "local/container/requirements.lock",
    "serving": "pipelines/serving/requirements.lock",
}
"""By what they are for: synth, tests, the command and functions; local jobs; the model server."""


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, lock in LOCKS.items():
        write(name, told(str(CYCLONEDX), "requirements", lock, "--output-reproducible", "--output-format", "JSON"))
    write("node", told("npm", "sbom", "--package-lock-only", "--sbom-format", "cyclonedx"))


def told(*command: str) -> str:
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def write(name: str, text: str) -> None:
    """Without what says when and where it was made."""
    bill = json.loads(text)
    bill.pop("serialNumber", None)
    bill.get("metadata", {}).pop("timestamp", None)
    file = OUT / f"{name}.cdx.json"
    file.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{file.relative_to(REPOSITORY)}: {len(bill['components'])} components\n")


if __name__ == "__main__":
    main()
