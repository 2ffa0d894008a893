"""Entry points of the pipeline's jobs: every path comes from the arguments or the job's environment.

prepare    datasets → train/, test/
train      train/, test/ → model bundle
evaluate   model bundle, test/, champion → evaluation.json, baseline.json, golden.json,
           attribution.json
"""

import os
from pathlib import Path

from noria.spec import ModelSpec
from noria.sql import Resources

SPEC = "spec.json"


def read_spec(folder: Path) -> ModelSpec:
    """The dumped spec of the model that this pipeline is for."""
    return ModelSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))


def half_of_this_machine() -> Resources:
    """Half of the memory for DuckDB, the other half for arrays; a job has its machine for itself."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Resources(memory_mb=memory // 2 // 1024**2)
