"""Joined labels as training data: uploads by Noria itself, one for each day of predictions, and again as it grows.

    <model>/incoming/labelled/<day>/<number>-<state>.parquet

Each goes through the door that every upload goes through. A later one of a day holds all that the earlier ones held,
with corrected labels, so a training uses the one with the highest number and no other: each prediction is learnt from
once, with its newest label.
"""

from collections.abc import Iterable
from datetime import date
from typing import Literal

from noria.names import ObjectKey, key
from noria.spec import ModelSpec

FOLDER = "labelled/"

Origin = Literal["upload", "labels"]


def folder_of(model: str, day: date) -> str:
    return key(model, "incoming", f"{FOLDER}{day}/")


def dataset_key(model: str, day: date, *, number: int, state: str) -> str:
    """`number` grows whenever the labels of that day change; `state` names the rows that come of them."""
    return f"{folder_of(model, day)}{number:012}-{state}.parquet"


def origin(source_key: str) -> Origin:
    """Whether an upload under incoming/ was made from labels."""
    return "labels" if ObjectKey.parse(source_key).rest.startswith(FOLDER) else "upload"


def superseded(source_keys: Iterable[str]) -> frozenset[str]:
    """Those that were made from labels and of whose day there is a later one."""
    newest: dict[str, str] = {}
    made = {source for source in source_keys if origin(source) == "labels"}
    for source in made:
        day = source.rpartition("/")[0]
        newest[day] = max(newest.get(day, ""), source)
    return frozenset(made - set(newest.values()))


def asked_of_a_part(spec: ModelSpec) -> ModelSpec:
    """The spec as it is for one day of labels, which is a part of a dataset: what is asked of a whole is a warning."""
    milder = spec.contract.severity | dict.fromkeys(("min_rows", "constant", "missing", "duplicates"), "warn")
    return spec.model_copy(update={"contract": spec.contract.model_copy(update={"severity": milder})})
