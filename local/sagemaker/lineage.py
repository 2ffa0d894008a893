"""Lineage: artifacts and actions, and how they are associated. An artifact for each model package is made by itself.

https://docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-entities.html
"""

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from local.sagemaker.api import Document, invalid, not_found
from local.sagemaker.cloud import Cloud
from local.sagemaker.listing import listed, page, summary
from local.sagemaker.tags import Tags

DEPTH = 10  # as deep as QueryLineage goes


class Lineage:
    def __init__(self, cloud: Cloud, tags: Tags) -> None:
        self._cloud = cloud
        self._tags = tags
        self._artifacts: dict[str, Document] = {}  # by ARN
        self._actions: dict[str, Document] = {}
        self._associations: dict[tuple[str, str], Document] = {}  # by the ARNs of source and destination
        self._lock = threading.RLock()

    def package_registered(self, arn: str) -> None:
        """What SageMaker makes of a package by itself, as far as anybody here asks for it."""
        self.create_artifact({"Source": {"SourceUri": arn}, "ArtifactType": "Model"})

    # --- artifacts

    def create_artifact(self, request: Document) -> Document:
        uri = request["Source"]["SourceUri"]
        arn = self._cloud.arn("artifact", hashlib.md5(uri.encode(), usedforsecurity=False).hexdigest())
        with self._lock:
            if arn in self._artifacts:
                raise invalid(f"Artifact with source URI {uri} already exists: {arn}")
            self._artifacts[arn] = self._new(request, "ArtifactArn", arn)
        return {"ArtifactArn": arn}

    def describe_artifact(self, request: Document) -> Document:
        with self._lock:
            return dict(self._found(self._artifacts, request["ArtifactArn"]))

    def list_artifacts(self, request: Document) -> Document:
        with self._lock:
            found = [a for a in self._artifacts.values() if _is_asked(a, request, "ArtifactType")]
            chosen, token = listed(found, _dated(request), name="ArtifactName")
        members = ("ArtifactArn", "ArtifactName", "Source", "ArtifactType", "CreationTime", "LastModifiedTime")
        return {"ArtifactSummaries": [summary(artifact, *members) for artifact in chosen], "NextToken": token}

    def delete_artifact(self, request: Document) -> Document:
        uri = request.get("Source", {}).get("SourceUri")
        with self._lock:
            named = (arn for arn, artifact in self._artifacts.items() if artifact["Source"]["SourceUri"] == uri)
            arn = request.get("ArtifactArn") or next(named, "")
            return {"ArtifactArn": self._delete(self._artifacts, arn)}

    # --- actions

    def create_action(self, request: Document) -> Document:
        arn = self._action_arn(request["ActionName"])
        with self._lock:
            if arn in self._actions:
                raise invalid(f"Action already exists: {arn}")
            self._actions[arn] = self._new(request, "ActionArn", arn)
        return {"ActionArn": arn}

    def describe_action(self, request: Document) -> Document:
        with self._lock:
            return dict(self._found(self._actions, self._action_arn(request["ActionName"])))

    def update_action(self, request: Document) -> Document:
        arn = self._action_arn(request["ActionName"])
        with self._lock:
            action = self._found(self._actions, arn)
            action |= {name: request[name] for name in ("Description", "Status") if name in request}
            kept = {
                k: v
                for k, v in (action.get("Properties") or {}).items()
                if k not in request.get("PropertiesToRemove", ())
            }
            action["Properties"] = kept | request.get("Properties", {})
            action["LastModifiedTime"] = self._cloud.now()
        return {"ActionArn": arn}

    def list_actions(self, request: Document) -> Document:
        with self._lock:
            found = [a for a in self._actions.values() if _is_asked(a, request, "ActionType")]
            chosen, token = listed(found, _dated(request), name="ActionName")
        members = ("ActionArn", "ActionName", "Source", "ActionType", "Status", "CreationTime", "LastModifiedTime")
        return {"ActionSummaries": [summary(action, *members) for action in chosen], "NextToken": token}

    def delete_action(self, request: Document) -> Document:
        with self._lock:
            return {"ActionArn": self._delete(self._actions, self._action_arn(request["ActionName"]))}

    # --- associations

    def add_association(self, request: Document) -> Document:
        ends = request["SourceArn"], request["DestinationArn"]
        with self._lock:
            for arn in ends:
                self._entity(arn)
            if ends in self._associations:
                raise invalid(f"Association between {ends[0]} and {ends[1]} already exists")
            self._associations[ends] = {
                "SourceArn": ends[0],
                "DestinationArn": ends[1],
                "AssociationType": request.get("AssociationType"),
                "CreationTime": self._cloud.now(),
            }
        return {"SourceArn": ends[0], "DestinationArn": ends[1]}

    def list_associations(self, request: Document) -> Document:
        with self._lock:
            told = [self._told(association) for association in self._associations.values()]
        filters = ("SourceArn", "DestinationArn", "SourceType", "DestinationType", "AssociationType")
        found = [a for a in told if all(request.get(name, a[name]) == a[name] for name in filters)]
        chosen, token = listed(found, _dated(request), name="SourceName")
        return {"AssociationSummaries": chosen, "NextToken": token}

    def delete_association(self, request: Document) -> Document:
        ends = request["SourceArn"], request["DestinationArn"]
        with self._lock:
            if self._associations.pop(ends, None) is None:
                raise not_found(f"Association between {ends[0]} and {ends[1]} does not exist")
        return {"SourceArn": ends[0], "DestinationArn": ends[1]}

    def query_lineage(self, request: Document) -> Document:
        """What is above, below or both of one entity. Filters by type and kind; not by properties or times."""
        filters = request.get("Filters", {})
        if unknown := set(filters) - {"Types", "LineageTypes"}:
            raise invalid(f"The local SageMaker does not filter lineage by {', '.join(sorted(unknown))}.")
        (start,) = request["StartArns"]
        direction = request.get("Direction", "Both")
        with self._lock:
            self._entity(start)
            vertices, edges = {}, []
            for downwards in (False, True):
                if direction in {"Both", "Descendants" if downwards else "Ascendants"}:
                    for association, arn in self._walked(start, downwards, request.get("MaxDepth", DEPTH)):
                        vertices[arn] = self._vertex(arn)
                        edges.append({n: association[n] for n in ("SourceArn", "DestinationArn", "AssociationType")})
        found = [
            vertex
            for vertex in vertices.values()
            if vertex["Type"] in filters.get("Types", [vertex["Type"]])
            and vertex["LineageType"] in filters.get("LineageTypes", [vertex["LineageType"]])
        ]
        chosen, token = page(found, request)
        return {"Vertices": chosen, "Edges": edges if request.get("IncludeEdges", True) else [], "NextToken": token}

    def _walked(self, start: str, downwards: bool, depth: int) -> Iterator[tuple[Document, str]]:
        here, there = ("SourceArn", "DestinationArn") if downwards else ("DestinationArn", "SourceArn")
        waiting, seen = deque([(start, 0)]), {start}
        while waiting:
            arn, steps = waiting.popleft()
            for association in self._associations.values():
                if association[here] == arn and steps < depth:
                    yield association, association[there]
                    if association[there] not in seen:
                        seen.add(association[there])
                        waiting.append((association[there], steps + 1))

    # --- entities

    def _new(self, request: Document, member: str, arn: str) -> Document:
        now = self._cloud.now()
        self._tags.put(arn, request.get("Tags"))
        kept = {name: value for name, value in request.items() if name != "Tags"}
        return {
            **kept,
            member: arn,
            "CreationTime": now,
            "LastModifiedTime": now,
            "CreatedBy": {},
            "LastModifiedBy": {},
        }

    def _action_arn(self, name: str) -> str:
        return name if name.startswith("arn:") else self._cloud.arn("action", name.lower())

    def _found(self, entities: dict[str, Document], arn: str) -> Document:
        if arn not in entities:
            raise not_found(f"{arn} does not exist")
        return entities[arn]

    def _entity(self, arn: str) -> Document:
        return self._found(self._artifacts if ":artifact/" in arn else self._actions, arn)

    def _delete(self, entities: dict[str, Document], arn: str) -> str:
        self._found(entities, arn)
        if any(arn in ends for ends in self._associations):
            raise invalid(f"{arn} has associations: delete them first.")
        del entities[arn]
        self._tags.forget(arn)
        return arn

    def _vertex(self, arn: str) -> Document:
        entity = self._entity(arn)
        kind = "Artifact" if ":artifact/" in arn else "Action"
        return {"Arn": arn, "Type": entity[f"{kind}Type"], "LineageType": kind}

    def _told(self, association: Document) -> Document:
        ends: dict[str, Any] = {}
        for end in ("Source", "Destination"):
            arn = association[f"{end}Arn"]
            entity = self._entity(arn)
            ends[f"{end}Type"] = self._vertex(arn)["Type"]
            ends[f"{end}Name"] = entity.get("ArtifactName") or entity.get("ActionName")
        return association | ends


def _is_asked(entity: Document, request: Document, kind: str) -> bool:
    uri = entity["Source"]["SourceUri"]
    asked: bool = request.get("SourceUri", uri) == uri and request.get(kind, entity[kind]) == entity[kind]
    return asked


def _dated(request: Document) -> Document:
    """These List operations say Created, where others say CreationTime."""
    return request | {
        f"CreationTime{b}": request[f"Created{b}"] for b in ("After", "Before") if f"Created{b}" in request
    }
