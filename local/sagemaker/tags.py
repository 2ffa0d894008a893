"""Tags of any SageMaker resource, by its ARN."""

import threading

from local.sagemaker.api import Document


class Tags:
    def __init__(self) -> None:
        self._tags: dict[str, dict[str, str]] = {}
        self._lock = threading.RLock()

    def add_tags(self, request: Document) -> Document:
        self.put(request["ResourceArn"], request["Tags"])
        return {"Tags": self.of(request["ResourceArn"])}

    def list_tags(self, request: Document) -> Document:
        return {"Tags": self.of(request["ResourceArn"])}

    def delete_tags(self, request: Document) -> Document:
        with self._lock:
            tags = self._tags.get(request["ResourceArn"], {})
            for key in request["TagKeys"]:
                tags.pop(key, None)
        return {}

    def put(self, arn: str, tags: list[dict[str, str]] | None) -> None:
        """Add to a resource's tags, as `Tags` of a Create request gives them."""
        with self._lock:
            self._tags.setdefault(arn, {}).update({tag["Key"]: tag["Value"] for tag in tags or []})

    def of(self, arn: str) -> list[dict[str, str]]:
        with self._lock:
            return [{"Key": key, "Value": value} for key, value in self._tags.get(arn, {}).items()]

    def forget(self, arn: str) -> None:
        with self._lock:
            self._tags.pop(arn, None)

    def compared(self, arn: str) -> dict[str, str] | None:
        """What policies compare: a package has its group's tags, as CreateModelPackage's reference says."""
        start, _, rest = arn.partition(":model-package/")
        of = f"{start}:model-package-group/{rest.partition('/')[0]}" if rest else arn
        with self._lock:
            found = self._tags.get(of)
            return None if found is None else dict(found)
