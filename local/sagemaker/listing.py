"""The List operations' common parameters: filters, order and pages."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from local.sagemaker.api import Document, invalid

PAGE = 100


def listed(
    records: Iterable[Document],
    request: Document,
    *,
    name: str,
    status: str = "",
    sort_by: str = "CreationTime",
    order: str = "Descending",
) -> tuple[list[Document], str | None]:
    """A page of records and the token of the next one.

    `name` and `status` are the members that hold a record's name and status; `sort_by` and `order` are the operation's
    documented defaults. Raises ValidationException for a token that isn't ours.
    """
    found = [record for record in records if _matches(record, request, name, status)]
    key: str = request.get("SortBy", sort_by)
    member = {"Name": name, "Status": status}.get(key, key)
    found.sort(key=lambda record: record[member])
    if request.get("SortOrder", order) == "Descending":
        found.reverse()
    return page(found, request)


def page(found: list[Document], request: Document) -> tuple[list[Document], str | None]:
    """The page that a request asks for, and the token of the next one."""
    start = _position(request.get("NextToken"))
    end = start + int(request.get("MaxResults", PAGE))
    return found[start:end], _token(end) if end < len(found) else None


def summary(record: Document, *members: str) -> Document:
    return {member: record.get(member) for member in members}


def _matches(record: Document, request: Document, name: str, status: str) -> bool:
    def within(member: str) -> bool:
        after, before = (request.get(f"{member}{bound}") for bound in ("After", "Before"))
        moment: Any = record.get(member)
        return (after is None or moment > after) and (before is None or moment < before)

    return (
        within("CreationTime")
        and within("LastModifiedTime")
        and request.get("NameContains", "").lower() in str(record.get(name, "")).lower()
        and request.get("StatusEquals", record.get(status)) == record.get(status)
    )


def _token(position: int) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode()


def _position(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError) as error:
        raise invalid("Invalid pagination token") from error
