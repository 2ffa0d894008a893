"""The benchmark's model, with a contract on every column."""

from benchmarks.profile.peers.columns import CATEGORIES, NUMBERS
from noria.spec import ModelSpec

RANGES = {"hour": (0, 24), "minute": (0, 60), "distance": (0, 6000), "humid": (-1, 101), "wind_dir": (-1, 361)}

SPEC = ModelSpec.model_validate(
    {
        "model": "benchmark",
        "task": "binary_classification",
        "target": "late",
        "time": "ts",
        "features": {
            **{
                name: {"type": "number", "missing": 0.5}
                | (dict(zip(("min", "max"), RANGES[name], strict=True)) if name in RANGES else {})
                for name in NUMBERS
            },
            **{name: {"type": "category"} for name in CATEGORIES},
        },
        "owner": {"team": "benchmark"},
    }
)
