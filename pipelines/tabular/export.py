"""python -m pipelines.tabular.export: write definition.json anew (`--stdout` prints it instead).

Runs under .noria/sdk, which has the SageMaker SDK; nothing else does.
"""

import json
import sys
from pathlib import Path
from typing import Any

DEFINITION = Path(__file__).with_name("definition.json")


def definition() -> str:
    """The definition as reviewed: sorted, indented, placeholders in place."""
    from pipelines.tabular.pipeline import STAND_INS, pipeline  # noqa: PLC0415 - a reader of DEFINITION has no SDK

    def placeholders(part: Any) -> Any:
        if isinstance(part, dict):
            # The SDK writes the region it was imported with; containers know their own.
            return {name: placeholders(value) for name, value in part.items() if name != "SAGEMAKER_REGION"}
        if isinstance(part, list):
            return [placeholders(value) for value in part]
        return STAND_INS.get(part, part)

    document = placeholders(json.loads(pipeline().definition()))
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    if "--stdout" in sys.argv[1:]:
        sys.stdout.write(definition())
    else:
        DEFINITION.write_text(definition(), encoding="utf-8")
