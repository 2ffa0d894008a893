"""Packages registered by hand, as a colleague does it who has a bundle from elsewhere: a copy, or one with a fault."""

import hashlib
import json
import tempfile
from pathlib import Path
from uuid import uuid4

from local.demo import faults
from local.demo.faults import Fault
from local.demo.world import World, repack, unpacked
from noria.golden import Golden

FAILING_CARRIER = "UA"
"""A version that fails does so on the flights of this carrier, about one in six."""

_KEPT = ("Image", "Environment", "Framework", "FrameworkVersion")


def register(world: World, source: str, fault: Fault | None = None) -> str:
    """Register the bundle of package `source` (ARN) as a new version of `world.model`; returns its ARN.

    Golden rows come along, and ask for the answers of the source.
    """
    package = world.package(source)
    container = dict(package["InferenceSpecification"]["Containers"][0])
    metadata = dict(package["CustomerMetadataProperties"])
    golden = Golden.model_validate_json(world.read_uri(metadata["noria:golden"]))
    by_hand = f"by-hand-{uuid4().hex[:12]}"
    bundle, baselines = f"{world.model}/runs/{by_hand}/model/model.tar.gz", f"{world.model}/baselines/{by_hand}"
    with tempfile.TemporaryDirectory() as folder:
        good, copy = Path(folder) / "good.tar.gz", Path(folder) / "model.tar.gz"
        good.write_bytes(world.read_uri(container["ModelDataUrl"]))
        replaced = {}
        if fault:
            model = _faulty(unpacked(good), fault)
            golden = golden.model_copy(update={"bundle": hashlib.sha256(model).hexdigest()})
            replaced = {"model.onnx": model, "golden.json": golden.model_dump_json().encode()}
        repack(good, copy, replace=replaced)
        world.s3.upload_file(str(copy), world.bucket, bundle)
    baseline = world.read_uri(metadata["noria:baseline"])
    for name, document in {"golden.json": golden.model_dump_json().encode(), "baseline.json": baseline}.items():
        world.s3.put_object(Bucket=world.bucket, Key=f"{baselines}/{name}", Body=document)
    kept = {name: container[name] for name in _KEPT if name in container}
    specification = {
        **{name: value for name, value in package["InferenceSpecification"].items() if name != "Containers"},
        "Containers": [{**kept, "ModelDataUrl": f"s3://{world.bucket}/{bundle}"}],
    }
    places = {f"noria:{name}": f"s3://{world.bucket}/{baselines}/{name}.json" for name in ("golden", "baseline")}
    created = world.sagemaker.create_model_package(
        ModelPackageGroupName=world.endpoint,
        ModelPackageDescription="Registered by hand",
        InferenceSpecification=specification,
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={**metadata, **places, "noria:outcome": "none"},
    )
    return str(created["ModelPackageArn"])


def _faulty(bundle: dict[str, bytes], fault: Fault) -> bytes:
    """The ONNX model of a bundle with the fault built in."""
    if fault is Fault.SWAPPED:
        return faults.swapped(bundle["model.onnx"])
    features = json.loads(bundle["signature.json"])["features"]
    names = [feature["name"] for feature in features]
    carriers = features[names.index("carrier")]["categories"]
    return faults.failing(bundle["model.onnx"], column=names.index("carrier"), value=carriers.index(FAILING_CARRIER))
