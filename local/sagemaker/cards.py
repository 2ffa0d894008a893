"""Model cards: content by SageMaker's JSON schema, each change of which is a version of its own."""

import json
import threading

from pydantic import ValidationError

from local.sagemaker.api import Document, Problem, invalid, not_found
from local.sagemaker.cloud import Cloud
from local.sagemaker.listing import listed, summary
from local.sagemaker.tags import Tags
from noria.card.sagemaker import Content

# What DescribeModelCard tells of the content to who may not decrypt it.
_METADATA = (("model_overview", "model_id"), ("model_overview", "model_name"), ("intended_uses", "risk_rating"))


class Cards:
    def __init__(self, cloud: Cloud, tags: Tags) -> None:
        self._cloud = cloud
        self._tags = tags
        self._cards: dict[str, list[Document]] = {}  # the versions of each, oldest first
        self._lock = threading.RLock()

    def create_model_card(self, request: Document) -> Document:
        name = request["ModelCardName"]
        _check(request["Content"])
        arn, now = self._cloud.arn("model-card", name), self._cloud.now()
        with self._lock:
            if name in self._cards:
                raise Problem("ConflictException", f"Modelcard with name {name} already exists.")
            self._cards[name] = [
                {
                    **summary(request, "ModelCardName", "Content", "ModelCardStatus", "SecurityConfig"),
                    "ModelCardArn": arn,
                    "ModelCardVersion": 1,
                    "CreationTime": now,
                    "CreatedBy": {},
                    "LastModifiedTime": now,
                    "LastModifiedBy": {},
                }
            ]
            self._tags.put(arn, request.get("Tags"))
        return {"ModelCardArn": arn}

    def describe_model_card(self, request: Document) -> Document:
        with self._lock:
            versions = self._versions(request["ModelCardName"])
            wanted = request.get("ModelCardVersion", versions[-1]["ModelCardVersion"])
            found = next((dict(card) for card in versions if card["ModelCardVersion"] == wanted), None)
        if found is None:
            raise not_found(f"Modelcard {request['ModelCardName']} has no version {wanted}.")
        if request.get("IncludedData") == "MetadataOnly":
            found["Content"] = _metadata(found["Content"])
        return found

    def update_model_card(self, request: Document) -> Document:
        if ("Content" in request) == ("ModelCardStatus" in request):
            raise invalid("Update either the content or the status of a model card: exactly one of the two.")
        if "Content" in request:
            _check(request["Content"])
        with self._lock:
            versions = self._versions(request["ModelCardName"])
            newest = versions[-1] | {"LastModifiedTime": self._cloud.now()}
            if "Content" in request:
                version = newest["ModelCardVersion"] + 1
                versions.append(newest | {"Content": request["Content"], "ModelCardVersion": version})
            else:
                versions[-1] = newest | {"ModelCardStatus": request["ModelCardStatus"]}
            return {"ModelCardArn": newest["ModelCardArn"]}

    def list_model_cards(self, request: Document) -> Document:
        with self._lock:
            newest = [versions[-1] for versions in self._cards.values()]
        asked = request | {"StatusEquals": request["ModelCardStatus"]} if "ModelCardStatus" in request else request
        page, token = listed(newest, asked, name="ModelCardName", status="ModelCardStatus")
        members = ("ModelCardName", "ModelCardArn", "ModelCardStatus", "CreationTime", "LastModifiedTime")
        return {"ModelCardSummaries": [summary(card, *members) for card in page], "NextToken": token}

    def delete_model_card(self, request: Document) -> Document:
        with self._lock:
            arn = self._versions(request["ModelCardName"])[-1]["ModelCardArn"]
            del self._cards[request["ModelCardName"]]
        self._tags.forget(arn)
        return {}

    def _versions(self, reference: str) -> list[Document]:
        """Of a card that is named, or whose ARN is given."""
        found = self._cards.get(reference.rpartition("/")[2])
        if found is None:
            raise not_found(f"Modelcard {reference} does not exist.")
        return found


def _check(content: str) -> None:
    try:
        Content.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise invalid(f"Content does not match the model card JSON schema at {place}: {first['msg']}") from error


def _metadata(content: str) -> str:
    document = json.loads(content)
    kept: Document = {}
    for part, member in _METADATA:
        if member in (document.get(part) or {}):
            kept.setdefault(part, {})[member] = document[part][member]
    return json.dumps(kept)
