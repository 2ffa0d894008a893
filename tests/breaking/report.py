"""What was tried and what came of it: a line each while it goes on, and a file at the end."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.cloud import WORK

FOLDER = WORK / "breaking"


@dataclass(frozen=True)
class Tried:
    """One way of breaking one scene; `differs` says what was not as in the undisturbed run."""

    scene: str
    how: str
    differs: Sequence[str]


@dataclass
class Report:
    """`about` names the file."""

    about: str
    say: Callable[[str], None]
    tried: list[Tried] = field(default_factory=list)

    def add(self, scene: str, how: str, differs: Sequence[str]) -> None:
        self.tried.append(Tried(scene, how, differs))
        self.say(f"  {'DIFFERS' if differs else 'the same'}  {scene}: {how}")
        for line in differs:
            self.say(f"    {line[:200]}")

    def save(self) -> Path:
        """Write JSON for machines, and Markdown for people; returns the latter."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        told = [{"scene": each.scene, "how": each.how, "differs": list(each.differs)} for each in self.tried]
        (FOLDER / f"{self.about}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        page = FOLDER / f"{self.about}.md"
        page.write_text(self._page(), encoding="utf-8")
        return page

    def _page(self) -> str:
        tried, wrong = Counter(t.scene for t in self.tried), Counter(t.scene for t in self.tried if t.differs)
        lines = [
            f"# {self.about.capitalize()}: {len(self.tried)} tried, {sum(wrong.values())} ended otherwise",
            "",
            "| scene | tried | ended otherwise |",
            "|---|---|---|",
            *(f"| {scene} | {number} | {wrong[scene]} |" for scene, number in tried.items()),
            "",
        ]
        for each in self.tried:
            if each.differs:
                lines += [f"## {each.scene}: {each.how}", "", *(f"- {line}" for line in each.differs), ""]
        return "\n".join(lines)
