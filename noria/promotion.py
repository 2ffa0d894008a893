"""A version that was approved in one environment, registered in another: what is copied, and what is said of it there.

The copy is what the registry has, under this environment's bucket and account; it says where it comes from. So what is
live here needs nothing of the other account but at the moment of its promotion.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from noria.names import ObjectKey

ORIGIN = "noria:origin"
"""Property of a package that was promoted: the package that it is a copy of."""

AREAS = frozenset({"runs", "baselines"})
"""Where the objects of a package are: its model, its evaluation, its baseline and golden rows."""

_KEPT = ("InferenceSpecification", "ModelMetrics", "DriftCheckBaselines")
_NOT_COPIED = frozenset({"noria:outcome"})  # what came of it there
_KNOWN_ANEW = frozenset({"ImageDigest", "ModelDataETag"})  # SageMaker's own findings, of the original


@dataclass(frozen=True, kw_only=True)
class Place:
    """An environment's account and data bucket."""

    account: str
    bucket: str


@dataclass(frozen=True, kw_only=True)
class Copy:
    """`registration` is the request for the new package but for its group, `objects` the keys that it names."""

    registration: Mapping[str, Any]
    objects: tuple[str, ...]


def copy(described: Mapping[str, Any], *, model: str, origin: Place, here: Place) -> Copy:
    """What DescribeModelPackage says of a package of `model` in `origin`, as it is to be registered `here`.

    Raises ValueError when it names an object that is not the model's, or in a bucket of neither.
    """
    said = {name: described[name] for name in _KEPT if name in described}
    metadata = {k: v for k, v in described.get("CustomerMetadataProperties", {}).items() if k not in _NOT_COPIED}
    objects = sorted(set(_keys([said, metadata], model=model, origin=origin)))
    return Copy(
        registration={
            **_moved(said, origin, here),
            "CustomerMetadataProperties": _moved(metadata, origin, here) | {ORIGIN: described["ModelPackageArn"]},
        },
        objects=tuple(objects),
    )


def token(package: str) -> str:
    """Of a registration: CreateModelPackage takes 36 characters, and knows a repetition by them."""
    return sha256(package.encode()).hexdigest()[:36]


def _keys(value: Any, *, model: str, origin: Place) -> Iterator[str]:
    match value:
        case str() if value.startswith("s3://"):
            bucket, _, key = value.removeprefix("s3://").partition("/")
            named = ObjectKey.parse(key)
            if bucket != origin.bucket or named.model != model or named.area not in AREAS:
                raise ValueError(f"{value} is no object of a package of {model!r} in {origin.bucket}")
            yield key
        case Mapping():
            for each in value.values():
                yield from _keys(each, model=model, origin=origin)
        case list():
            for each in value:
                yield from _keys(each, model=model, origin=origin)


def _moved(value: Any, origin: Place, here: Place) -> Any:
    """The same in this environment: objects are in its bucket, and images of the other account in its own registry.

    An image that is built at a deployment is named after what it is built of: the same name is the same image.
    """
    match value:
        case str() if value.startswith("s3://"):
            return f"s3://{here.bucket}/{value.removeprefix('s3://').partition('/')[2]}"
        case str() if value.startswith(f"{origin.account}.dkr.ecr."):
            return value.replace(origin.account, here.account)
        case Mapping():
            return {name: _moved(each, origin, here) for name, each in value.items() if name not in _KNOWN_ANEW}
        case list():
            return [_moved(each, origin, here) for each in value]
    return value
