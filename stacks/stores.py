"""What holds data is neither replaced nor dropped by mistake: the templates are compared with a committed list.

CloudFormation replaces a resource whose logical id, name or key schema changes, and with its stack's deletion policy
the old one goes, with all that is in it. `cdk diff` says so on one line among many. Here the synth stops instead.

    python -m stacks.stores     writes the list anew, from cdk.out, once the data has been moved (docs/cost.md)
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from noria.template import Assembly, Resource, Template

FILE = Path(__file__).with_name("stores.yaml")
KEPT: Mapping[str, tuple[str, ...]] = {
    "AWS::S3::Bucket": ("BucketName", "BucketNamePrefix", "BucketNamespace", "BucketEncryption"),
    "AWS::DynamoDB::Table": (
        "TableName",
        "KeySchema",
        "AttributeDefinitions",
        "ImportSourceSpecification",
        "SSESpecification",
    ),
    "AWS::KMS::Key": ("KeySpec", "KeyUsage", "Origin", "MultiRegion"),
    "AWS::Events::Archive": ("ArchiveName", "SourceArn"),
    "AWS::SageMaker::ModelPackageGroup": ("ModelPackageGroupName", "ModelPackageGroupDescription"),
}
"""Types that hold data, and the properties whose change replaces them, or leaves what they hold behind another key."""

Stores = dict[str, dict[str, Any]]
"""By `<part>/<logical id>`: the type, and the properties above as they are in every environment and of every model."""


def stores(assembly: Assembly) -> Stores:
    """As one model has them, which is as all others do: `problems` looks at each."""
    return {name: store for template in assembly.templates for name, store in _stores(template, assembly.region)}


def problems(assembly: Assembly, committed: Stores | None = None) -> list[str]:
    """A sentence for each store that would be replaced or dropped, or was not known; `optional` ones may be absent."""
    known = listed() if committed is None else committed
    return [
        f"{template.stack}: {problem}"
        for template in assembly.templates
        for problem in _problems(known, dict(_stores(template, assembly.region)), _part(template))
    ]


def listed() -> Stores:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def _part(template: Template) -> str:
    return template.stack.rpartition("-")[-1]


def _stores(template: Template, region: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for resource in template.resources().values():
        if resource.type in KEPT:
            name = f"{_part(template)}/{resource.id}"
            yield name, {"type": resource.type, **dict(_kept(template, resource, region))}


def _problems(known: Stores, found: Stores, part: str) -> Iterator[str]:
    for name, store in sorted(known.items()):
        if name in found or store.get("optional") or name.split("/")[0] != part:
            continue
        yield (
            f"{name}: {store['type']} would be deleted, or replaced by one with another logical id, and what it holds "
            f"with it. Keep the construct's path; if it is to go, {_REMEDY}"
        )
    for name, store in sorted(found.items()):
        if name not in known:
            yield f"{name}: {store['type']} holds data and is not in stacks/stores.yaml: run python -m stacks.stores"
            continue
        for property_ in KEPT[store["type"]]:
            was, now = known[name].get(property_), store.get(property_)
            if was != now:
                yield (
                    f"{name}: {property_} was {was} and would be {now}: CloudFormation would replace this "
                    f"{store['type']}, or leave what it holds behind. Take the change back; if it is meant, {_REMEDY}"
                )


_REMEDY = "move the data first (docs/cost.md, Moving a store), then run python -m stacks.stores"


def _kept(template: Template, resource: Resource, region: str | None) -> Iterator[tuple[str, Any]]:
    for property_ in KEPT[resource.type]:
        if (value := resource.get(property_)) is not None:
            yield property_, _anywhere(_flat(value), template, region)


def _flat(value: Any) -> Any:
    match value:
        case {"Fn::Join": [str(between), list(parts)]}:
            return between.join(str(_flat(part)) for part in parts)
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]} | {"Fn::ImportValue": str(name)}:
            return f"<{name.removeprefix('AWS::')}>"
        case list():
            return [_flat(each) for each in value]
        case dict():
            return {name: _flat(each) for name, each in value.items()}
    return value


def _anywhere(value: Any, template: Template, region: str | None) -> Any:
    """Without what environments, regions and models differ in."""
    match value:
        case str(text):
            _, env, *_ = template.stack.split("-")
            model = template.model
            text = re.sub(r"\d{12}|<AccountId>", "<account>", text)
            text = text.replace("arn:<Partition>:", "arn:aws:").replace(f"noria-{env}", "noria-<env>")
            text = re.sub(rf"\b{re.escape(model)}\b", "<model>", text) if model else text
            # After the model, whose name may have a region's in it.
            return re.sub(rf"\b{re.escape(region)}\b|<Region>" if region else "<Region>", "<region>", text)
        case list():
            return [_anywhere(each, template, region) for each in value]
        case dict():
            return {name: _anywhere(each, template, region) for name, each in value.items()}
    return value


def renewed(known: Stores, found: Stores) -> Stores:
    """The list as it is to be: what was found, and what is optional and was not."""
    optional = {name for name, store in known.items() if store.get("optional")}
    absent = {name: known[name] for name in optional - found.keys()}
    return absent | {name: store | ({"optional": True} if name in optional else {}) for name, store in found.items()}


def main() -> None:
    anew = renewed(listed(), stores(Assembly.read(Path("cdk.out"))))
    FILE.write_text(HEAD + yaml.safe_dump(anew, sort_keys=True, width=120), encoding="utf-8")


HEAD = """\
# What holds data, and what of it must not change: stacks/stores.py compares every synth with this list, and writes it.
# `optional`, written by hand: some environments have it and some not.
"""

if __name__ == "__main__":
    main()
