"""The model registry: package groups, and the versions in them with their approval and metadata."""

import json
import threading
from collections.abc import Callable
from typing import Any

from local import ministack
from local.sagemaker.api import CALLER, Document, Problem, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.events import iso
from local.sagemaker.listing import listed, summary
from local.sagemaker.tags import Tags

METADATA_ENTRIES = 50

# The members of UpdateModelPackage that become members of the package, replacing what was there.
_REPLACED = (
    "ModelApprovalStatus",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
)


class Registry:
    """Model package groups and model packages; every change of a package is announced as an event.

    `registered` hears the ARN of each new package.
    """

    def __init__(self, cloud: Cloud, tags: Tags, registered: Callable[[str], None] = lambda _: None) -> None:
        self._cloud = cloud
        self._tags = tags
        self._registered = registered
        self._groups: dict[str, Document] = {}
        self._packages: dict[str, Document] = {}  # by ARN
        self._versions: dict[str, int] = {}  # the last version of each group: numbers are never given twice
        self._tokens: dict[str, str] = {}  # ClientToken: ARN
        self._policies: dict[str, str] = {}  # by group
        self._lock = threading.RLock()
        ministack.register_policies("sagemaker", self.policy_of)

    # --- groups

    def create_model_package_group(self, request: Document) -> Document:
        name = request["ModelPackageGroupName"]
        with self._lock:
            if name in self._groups:
                raise invalid(f"Model Package Group already exists: {self._group_arn(name)}")
            self._groups[name] = {
                "ModelPackageGroupName": name,
                "ModelPackageGroupArn": self._group_arn(name),
                "ModelPackageGroupDescription": request.get("ModelPackageGroupDescription"),
                "CreationTime": self._cloud.now(),
                "CreatedBy": _who(),
                "ModelPackageGroupStatus": "Completed",
            }
            self._tags.put(self._group_arn(name), request.get("Tags"))
        return {"ModelPackageGroupArn": self._group_arn(name)}

    def describe_model_package_group(self, request: Document) -> Document:
        with self._lock:
            return dict(self._group(request["ModelPackageGroupName"]))

    def list_model_package_groups(self, request: Document) -> Document:
        with self._lock:
            page, token = listed(self._groups.values(), request, name="ModelPackageGroupName")
        members = ("Name", "Arn", "Description", "Status")
        summaries = [summary(g, *(f"ModelPackageGroup{m}" for m in members), "CreationTime") for g in page]
        return {"ModelPackageGroupSummaryList": summaries, "NextToken": token}

    def delete_model_package_group(self, request: Document) -> Document:
        with self._lock:
            name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
            if any(package.get("ModelPackageGroupName") == name for package in self._packages.values()):
                raise Problem("ConflictException", f"Model Package Group {name} cannot be deleted: it has packages.")
            del self._groups[name]
            self._policies.pop(name, None)
            self._tags.forget(self._group_arn(name))
        return {}

    # --- who may do what with a group and its packages

    def put_model_package_group_policy(self, request: Document) -> Document:
        try:
            statements = json.loads(request["ResourcePolicy"])["Statement"]
        except (ValueError, TypeError, KeyError) as error:
            raise invalid(f"The resource policy is no policy document: {error!r}") from error
        with self._lock:
            name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
            own = (self._group_arn(name), f"{self._cloud.arn('model-package', name)}/")
            for statement in statements if isinstance(statements, list) else [statements]:
                resources = statement.get("Resource", [])
                for resource in resources if isinstance(resources, list) else [resources]:
                    if not str(resource).startswith(own):
                        raise invalid(f"Resource {resource} is not of model package group {name}.")
            self._policies[name] = request["ResourcePolicy"]
        return {"ModelPackageGroupArn": self._group_arn(name)}

    def get_model_package_group_policy(self, request: Document) -> Document:
        with self._lock:
            name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
            if name not in self._policies:
                raise invalid(f"Cannot find resource policy for: {self._group_arn(name)}")
            return {"ResourcePolicy": self._policies[name]}

    def delete_model_package_group_policy(self, request: Document) -> Document:
        with self._lock:
            name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
            self._policies.pop(name, None)
        return {}

    def policy_of(self, arn: str) -> tuple[str, str] | None:
        """The policy that speaks of a group or a package, with the account that owns it."""
        kind, _, rest = arn.rpartition(":")[2].partition("/")
        if kind not in {"model-package", "model-package-group"}:
            return None
        # Without a policy its own account decides, and no other account may do anything.
        return self._policies.get(rest.partition("/")[0], ""), arn.split(":")[4]

    # --- packages

    def create_model_package(self, request: Document) -> Document:
        token = request.get("ClientToken")
        with self._lock:
            if token in self._tokens:
                return {"ModelPackageArn": self._tokens[token]}
            package = self._new_package(request)
            arn = package["ModelPackageArn"]
            self._packages[arn] = package
            if token:
                self._tokens[token] = arn
            self._tags.put(arn, request.get("Tags"))
            self._registered(arn)
        self._announce(package)
        return {"ModelPackageArn": arn}

    def _new_package(self, request: Document) -> Document:
        identity: dict[str, Any]
        if group := request.get("ModelPackageGroupName"):
            name = self._group(group)["ModelPackageGroupName"]
            version = self._versions[name] = self._versions.get(name, 0) + 1
            identity = {
                "ModelPackageGroupName": name,
                "ModelPackageVersion": version,
                "ModelPackageArn": self._cloud.arn("model-package", f"{name}/{version}"),
                # Only versions are approved; a version that says nothing waits for it.
                "ModelApprovalStatus": request.get("ModelApprovalStatus", "PendingManualApproval"),
            }
        elif name := request.get("ModelPackageName"):
            identity = {"ModelPackageName": name, "ModelPackageArn": self._cloud.arn("model-package", name)}
            if identity["ModelPackageArn"] in self._packages:
                raise invalid(f"Model Package already exists: {identity['ModelPackageArn']}")
        else:
            raise invalid("Either ModelPackageName or ModelPackageGroupName is required.")
        now = self._cloud.now()
        kept = {key: value for key, value in request.items() if key not in ("Tags", "ClientToken")}
        return {
            **kept,
            **identity,
            "CertifyForMarketplace": request.get("CertifyForMarketplace", False),
            "CreationTime": now,
            "CreatedBy": _who(),
            "LastModifiedTime": now,
            "LastModifiedBy": _who(),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        }

    def describe_model_package(self, request: Document) -> Document:
        with self._lock:
            return dict(self._package(request["ModelPackageName"]))

    def update_model_package(self, request: Document) -> Document:
        with self._lock:
            package = self._package(request["ModelPackageArn"])
            if "ModelApprovalStatus" in request and "ModelPackageGroupName" not in package:
                raise invalid("The approval status can only be changed for a versioned model package.")
            changes = {member: request[member] for member in _REPLACED if member in request}
            if added := request.get("AdditionalInferenceSpecificationsToAdd"):
                specifications = package.get("AdditionalInferenceSpecifications", [])
                changes["AdditionalInferenceSpecifications"] = [*specifications, *added]
            metadata = self._metadata(package, request)
            if metadata != package.get("CustomerMetadataProperties", {}):
                changes["CustomerMetadataProperties"] = metadata
            package.update(changes, LastModifiedTime=self._cloud.now(), LastModifiedBy=_who())
            announced = dict(package)
        self._announce(announced, updated=list(changes))
        return {"ModelPackageArn": announced["ModelPackageArn"]}

    @staticmethod
    def _metadata(package: Document, request: Document) -> dict[str, str]:
        removed = set(request.get("CustomerMetadataPropertiesToRemove", []))
        metadata: dict[str, str] = {
            key: value for key, value in package.get("CustomerMetadataProperties", {}).items() if key not in removed
        }
        metadata |= request.get("CustomerMetadataProperties", {})
        if len(metadata) > METADATA_ENTRIES:
            raise invalid(f"A model package has at most {METADATA_ENTRIES} customer metadata properties.")
        return metadata

    def list_model_packages(self, request: Document) -> Document:
        with self._lock:
            packages = [dict(package) for package in self._packages.values() if self._is_listed(package, request)]
        for package in packages:
            package["Name"] = package.get("ModelPackageGroupName") or package.get("ModelPackageName")
        page, token = listed(packages, request, name="Name", order="Ascending")
        identity = ("ModelPackageArn", "ModelPackageName", "ModelPackageGroupName", "ModelPackageVersion")
        state = ("ModelPackageDescription", "CreationTime", "ModelPackageStatus", "ModelApprovalStatus")
        summaries = [summary(package, *identity, *state, "ModelLifeCycle") for package in page]
        return {"ModelPackageSummaryList": summaries, "NextToken": token}

    def _is_listed(self, package: Document, request: Document) -> bool:
        group = request.get("ModelPackageGroupName")
        if group is not None:
            return bool(package.get("ModelPackageGroupName") == self._group(group)["ModelPackageGroupName"]) and (
                request.get("ModelApprovalStatus", package["ModelApprovalStatus"]) == package["ModelApprovalStatus"]
            )
        kind = "Versioned" if "ModelPackageGroupName" in package else "Unversioned"
        status = package.get("ModelApprovalStatus")
        wanted = request.get("ModelPackageType", "Unversioned")
        return wanted in (kind, "Both") and request.get("ModelApprovalStatus", status) == status

    def delete_model_package(self, request: Document) -> Document:
        with self._lock:
            package = self._package(request["ModelPackageName"])
            del self._packages[package["ModelPackageArn"]]
            self._tags.forget(package["ModelPackageArn"])
        self._announce(package | {"ModelPackageStatus": "Deleting"})
        return {}

    # --- by name or ARN

    def _group_arn(self, name: str) -> str:
        return self._cloud.arn("model-package-group", name)

    def _group(self, name_or_arn: str) -> Document:
        name = name_or_arn.rsplit("/", 1)[-1]
        if name not in self._groups:
            raise invalid(f"ModelPackageGroup {self._group_arn(name)} does not exist.")
        return self._groups[name]

    def _package(self, name_or_arn: str) -> Document:
        is_arn = name_or_arn.startswith("arn:")
        arn = name_or_arn if is_arn else self._cloud.arn("model-package", name_or_arn)
        if arn not in self._packages:
            raise invalid(f"ModelPackage {arn} does not exist.")
        return self._packages[arn]

    def _announce(self, package: Document, updated: list[str] | None = None) -> None:
        detail = iso({key: value for key, value in package.items() if value is not None})
        if updated is not None:
            detail["UpdatedModelPackageFields"] = updated
        self._cloud.emit("SageMaker Model Package State Change", detail, [package["ModelPackageArn"]])


def _who() -> Document:
    """A `UserContext`: here nobody comes through Studio, so it is an IAM identity alone."""
    return {"IamIdentity": identity} if (identity := dict(CALLER.get({}))) else {}
