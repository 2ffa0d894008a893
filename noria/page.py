"""A page: what a person is told, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Page:
    """`subject` in one line; `what` happened, `where` to look, what to `do`, and a `command` that helps."""

    subject: str
    what: str
    where: str
    do: str
    command: str

    @property
    def message(self) -> str:
        return f"{self.what}\n\nWhere: {self.where}\nWhat to do: {self.do}\n\n    {self.command}\n"
