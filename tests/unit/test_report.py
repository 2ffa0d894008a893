"""A run's page as a text: what it says, in which order, and what it never lets through."""

import base64
import doctest
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.cli.commands import app
from noria.monitoring import Point
from noria.monitors import Finding
from noria.report import columns, html, numbers, render, render_contract
from noria.spec import ModelSpec
from tests.unit import report_upload
from tests.unit.report_run import END, HOSTILE, ROWS, run, spec

VOID = {"meta", "br", "hr"}
LIMIT = 1_000_000


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    content: list["Element | str"] = field(default_factory=list)

    @property
    def children(self) -> list["Element"]:
        return [part for part in self.content if isinstance(part, Element)]

    @property
    def text(self) -> str:
        """Its own, without that of elements in it."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def said(self) -> str:
        """All text in it."""
        return "".join(part if isinstance(part, str) else part.said for part in self.content)

    def all(self, name: str) -> Iterator["Element"]:
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def everything(self) -> Iterator["Element"]:
        for child in self.children:
            yield child
            yield from child.everything()


class Reader(HTMLParser):
    """A parser that is not ours; it fails where an element is not closed by its own end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def read(page: str) -> Element:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert [element.name for element in reader.open] == ["document"]
    return reader.open[0]


def by_id(document: Element, id_: str) -> Element:
    (found,) = [element for element in document.everything() if element.attributes.get("id") == id_]
    return found


def shape(element: Element) -> list[Any]:
    return [element.name, sorted(element.attributes), [shape(child) for child in element.children]]


# --- one file, safe and whole


@pytest.fixture(params=["usual", "hostile", "accepted", "refused"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each kind one, most of them with names that an enemy chose."""
    if request.param in ("usual", "hostile"):
        return render(run() if request.param == "usual" else run(spec(HOSTILE), HOSTILE))
    made = report_upload.accepted if request.param == "accepted" else report_upload.refused
    return render_contract(made(tmp_path))


def test_weights_say_of_which_window_they_are() -> None:
    assert "of 50 explained rows of the window that ended 2026-11-21 07:00 UTC." in render(run())


def test_the_same_run_gives_the_same_bytes() -> None:
    assert render(run()) == render(run())


def test_a_page_is_one_file_that_may_load_nothing_but_its_own_style(page: str) -> None:
    document = read(page)

    (policy,) = [m for m in document.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    (style,) = document.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    for element in document.everything():
        assert element.name not in {
            "script",
            "img",
            "link",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "image",
            "use",
        }
        assert not [name for name in element.attributes if name.startswith("on") or name in {"src", "style", "srcset"}]
        assert str(element.attributes.get("href", "#")).startswith("#")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_names_do_not_change_what_a_page_is_made_of() -> None:
    tame = tuple(f"{place}{'w' * len(name)}"[: len(name)] for place, name in enumerate(HOSTILE))

    hostile_page, tame_page = (read(render(run(spec(names), names))) for names in (HOSTILE, tame))

    assert sorted(map(str, map(shape, hostile_page.all("tr")))) == sorted(map(str, map(shape, tame_page.all("tr"))))
    assert [e.name for e in hostile_page.children[0].children] == [e.name for e in tame_page.children[0].children]


@given(st.text(min_size=1).filter(lambda text: text.strip() != ""))
@settings(max_examples=100)
def test_any_text_is_read_back_as_it_was_but_for_what_is_no_character(text: str) -> None:
    page = html.tag("p", text, title=text, data_of="x")

    (read_back,) = read(page).children
    printable = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", text)
    # A parser of HTML reads every end of line as one line feed.
    assert read_back.said == printable
    assert read_back.attributes["title"] == printable


def test_half_a_surrogate_pair_can_be_written_as_utf_8() -> None:
    assert html.text("a\ud800b").encode() == "a\ufffdb".encode()


@pytest.mark.parametrize("features", [200, 1000])
def test_a_page_is_small_however_much_there_is_to_tell(features: int) -> None:
    names = tuple(f"{place}: {'<' * 300}" for place in range(features))
    categories = tuple(f"{place}{'&' * 300}" for place in range(150))

    of = run(spec(names), categories)
    week = tuple(
        Point(end=END - timedelta(hours=hour), rows=ROWS, values={m.name: hour / 100 for m in of.monitors})
        for hour in range(168, 0, -1)
    )

    page = render(of.model_copy(update={"trend": week}))

    assert len(page.encode()) < LIMIT
    document = read(page)
    listed = [row.said for row in by_id(document, "features").all("th") if row.attributes.get("scope") == "row"]
    assert len(listed) == 200
    if features > 200:
        assert f"{features - 200:,} features with a smaller PSI are not listed." in by_id(document, "features").said


# --- what it says


def test_verdict_and_decision_come_first() -> None:
    said = [p.said for p in read(render(run())).all("p")]
    assert said.index(
        "5 of 14 monitors are beyond the limit: Data drift, Outliers, Model quality (auc), Bias by color: disparate "
        "impact and Traffic; 4 could not be judged."
    ) < said.index("Decision: Retraining requested: 2 datasets arrived since the last training.")


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("ok", "All 14 monitors are within the limit."),
        ("not enough data", "Too little is known: Reason of drift. Nothing could be judged."),
    ],
)
def test_a_verdict_is_never_better_than_what_is_known(state: Any, verdict: str) -> None:
    document = read(render(run(state=state, decision=None)))
    assert verdict in document.said
    assert "nothing has asked for it" in document.said
    badges = {badge.said for row in by_id(document, "monitors").all("tr") for badge in row.all("span")} - {""}
    assert any(state in badge for badge in badges)
    assert not any("✓" in badge for badge in badges) or state == "ok"


def test_every_monitor_is_told_with_its_value_limit_state_and_reason() -> None:
    of = run()
    rows = {row.children[0].text: row.said for row in by_id(read(render(of)), "monitors").all("tr")}
    words = {"breach": "beyond limit", "ok": "ok", "not enough data": "not enough data"}
    for monitor, finding in zip(of.monitors, of.findings, strict=True):
        row = rows[monitor.title]
        assert words[finding.state] in row
        assert finding.reason in row
        assert numbers.figure(finding.limit) in row
        assert ("0.125" in row) == (finding.value is not None)


def test_beyond_limit_comes_before_unknown_and_unknown_before_ok() -> None:
    states = [
        badge.said[1:]
        for row in by_id(read(render(run())), "monitors").all("tr")
        for badge in row.all("span")
        if str(badge.attributes.get("class", "")).startswith("badge")
    ]
    order = ["beyond limit", "not enough data", "ok"]
    assert states == sorted(states, key=order.index)


def test_what_changed_most_is_shown_first() -> None:
    of = run()
    psi = {name: drift.psi for name, drift in of.drift.features.items()}
    document = read(render(of))
    shown = [heading.said for heading in by_id(document, "changed").all("h3")]
    assert shown == sorted(psi, key=lambda name: -psi[name])
    listed = [row.said for row in by_id(document, "features").all("th") if row.attributes.get("scope") == "row"]
    assert listed == shown


def test_bars_are_as_high_as_the_shares_they_stand_for() -> None:
    of = run()
    card = next(c for c in by_id(read(render(of)), "changed").all("article") if c.said.startswith("x"))
    (chart, _) = card.all("svg")
    grid = [float(str(line.attributes["y1"])) for line in chart.all("line")]
    top = max(float(str(t.text).rstrip("%")) for t in chart.all("text") if str(t.text).endswith("%")) / 100
    for side, column in (("baseline", of.baseline.features["x"]), ("window", of.window.features["x"])):
        (path,) = [path for path in chart.all("path") if path.attributes["class"] == side]
        # Each bar is drawn as M <left> <foot> V <top> h <width> V <foot> z.
        tops = [float(y) for y in re.findall(r"M\S+ \S+V(\S+?)h", str(path.attributes["d"]))]
        shares = [(max(grid) - y) / (max(grid) - min(grid)) * top for y in tops]
        missing = [column.missing / column.rows] if column.missing else []
        assert shares == pytest.approx([*(count / column.rows for count in column.counts), *missing], abs=0.01)


def test_values_of_sensitive_features_are_nowhere() -> None:
    of = spec()
    features = {name: f.model_dump() | {"sensitive": True} for name, f in of.features.items()}
    secret = ModelSpec.model_validate(of.model_dump() | {"features": features})
    categories = ("crimson", "emerald", "sapphire")
    shown, hidden = (render(run(each, categories, live=None, findings=(), monitors=())) for each in (of, secret))

    before = run(of, categories).baseline.features
    for value in (*categories, numbers.figure(before["x"].min), numbers.figure(before["x"].max)):
        assert value in shown
        assert value not in hidden
    labels = {label for label in columns.distinct(before["x"].edges) if len(label) > 3}
    assert any(label in shown for label in labels)
    assert not any(f">{label}<" in hidden for label in labels)
    assert "not shown: sensitive" in hidden


def test_segments_are_told_by_their_share_and_by_whom_the_model_selects() -> None:
    of = run()
    rows = {
        row.children[0].said: [cell.said for cell in row.children[2:]]
        for row in by_id(read(render(of)), "asked").all("tr")
    }
    before, after = (side.features["color"] for side in (of.baseline, of.window))
    for value in ("green", "blue"):
        shares = [numbers.percent(side.categories[value] / ROWS) for side in (before, after)]
        chosen = [side.categories[value] // part / side.categories[value] for side, part in ((before, 4), (after, 3))]
        assert rows[value] == [*shares, *map(numbers.percent, chosen)]
    assert rows["red"][1:] == ["0%", numbers.percent((before.categories["red"] // 4) / before.categories["red"]), "–"]


def test_a_window_without_requests_is_told_as_such() -> None:
    of = run()
    empty = of.window.model_copy(update={"rows": 0})
    report = of.drift.model_copy(update={"enough": False, "features": {}, "drifted": (), "prediction": None})

    document = read(render(of.model_copy(update={"window": empty, "drift": report, "quality": None, "trend": ()})))

    assert "No request was captured in this window." in by_id(document, "changed").said
    assert "not compared" in by_id(document, "features").said


def test_a_widened_window_says_how_many_rows_were_its_own() -> None:
    assert "widened: the window itself had 12 rows" in read(render(run(own_rows=12))).said
    assert "widened" not in read(render(run(own_rows=ROWS))).said


def test_a_trend_draws_each_window_and_marks_those_beyond_the_limit() -> None:
    of = run()
    earlier = (0.05, 0.2, 0.3)
    trend = tuple(
        Point(end=END - timedelta(hours=3 - place), rows=ROWS, values={"outliers": value})
        for place, value in enumerate(earlier)
    )
    findings = tuple(
        Finding(monitor=f.monitor, state="ok", value=0.01, limit=0.1, reason="Reason.")
        if f.monitor == "outliers"
        else f
        for f in of.findings
    )

    trends = by_id(read(render(run(trend=trend, findings=findings))), "trends")

    (card,) = [card for card in trends.all("article") if card.said.startswith("Outliers")]
    (chart,) = card.all("svg")
    drawn = {str(path.attributes["class"]): str(path.attributes["d"]) for path in chart.all("path")}
    heights = {kind: [float(y) for _, y in re.findall(r"M(\S+) (\S+?)h", drawn[kind])] for kind in ("dots", "beyond")}
    grid = [float(str(line.attributes["y1"])) for line in chart.all("line") if line.attributes["class"] == "grid"]
    top = max(float(label.said) for label in chart.all("text") if re.fullmatch(r"[\d.]+", label.said))
    values = {
        kind: [(max(grid) - y - (4 if kind == "beyond" else 0)) / (max(grid) - min(grid)) * top for y in heights[kind]]
        for kind in heights
    }
    assert values["dots"] == pytest.approx([0.05, 0.01], abs=0.005)
    assert values["beyond"] == pytest.approx([0.2, 0.3], abs=0.005)
    assert len([line for line in chart.all("line") if line.attributes["class"] == "limit"]) == 1


def test_what_to_do_names_a_runbook_for_each_breach_and_commands_that_exist() -> None:
    of = run()
    todo = by_id(read(render(of)), "next")
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    (pre,) = todo.all("pre")
    lines = [line for line in pre.said.splitlines() if line and not line.startswith("# ")]
    assert len(lines) >= 4
    for line in lines:
        program, command, model, *_ = line.split()
        assert (program, model) == ("noria", of.model)
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert {*re.findall(r"--[a-z-]+", line)} <= known
        assert line.endswith("--env dev")
    runbooks = [code.said for item in todo.all("li") for code in item.all("code")]
    of_monitor = {monitor.name: f"docs/runbooks/{monitor.runbook}.md" for monitor in of.monitors}
    assert runbooks == [of_monitor[name] for name in of.breached]


# --- an upload


def test_a_refused_upload_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    report = report_upload.refused(tmp_path)

    document = read(render_contract(report))

    assert "The file was refused: 2 rules of the contract are broken." in document.said
    (heading,) = document.all("h1")
    assert heading.said == f"{HOSTILE[1]}.csv"
    rows = list(by_id(document, "violations").all("tr"))[1:]
    assert len(rows) == len(report.violations)
    told = [(row.children[0].said, row.children[1].said, row.children[3].said) for row in rows]
    assert told[:2] == [("color", "formula", "600"), ("y", "column", "1")]
    assert "rows 1, 2, 3, 4, 5 …" in rows[0].said
    assert f"noria validate FILE --model {report.model}" in by_id(document, "next").said


def test_an_accepted_upload_says_how_it_differs_from_training(tmp_path: Path) -> None:
    report = report_upload.accepted(tmp_path)
    assert report.shift

    document = read(render_contract(report))

    assert "The file is a dataset of 600 rows." in document.said
    shift = by_id(document, "shift")
    assert "2 columns of 3 with a PSI above" in shift.said
    listed = [row.said for row in shift.all("th") if row.attributes.get("scope") == "row"]
    assert listed == sorted(report.shift.features, key=lambda name: -report.shift.features[name].psi)  # type: ignore[union-attr]
    assert not [element for element in document.everything() if element.attributes.get("id") == "next"]


# --- for whoever reads otherwise


def test_a_page_can_be_read_without_eyes_for_it(page: str) -> None:
    document = read(page)

    (html_,) = document.all("html")
    assert html_.attributes["lang"] == "en"
    headings = [int(e.name[1]) for e in document.everything() if re.fullmatch("h[1-6]", e.name)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    for table in document.all("table"):
        assert table.children[0].name == "caption"
        assert all(cell.attributes.get("scope") in {"col", "row"} for cell in table.all("th"))
    for chart in document.all("svg"):
        if chart.attributes.get("aria-hidden") == "true":
            continue
        assert chart.attributes["role"] == "img"
        assert chart.children[0].name == "title"
        assert chart.children[0].text
    ids = [str(e.attributes["id"]) for e in document.everything() if "id" in e.attributes]
    assert len(ids) == len({*ids})
    for link in document.all("a"):
        assert str(link.attributes["href"]).removeprefix("#") in ids


@pytest.mark.parametrize("module", [numbers, html, columns])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert (found.failed, found.attempted > 0) == (0, True)


def test_numbers_next_to_each_other_are_told_apart() -> None:
    edges: Sequence[float] = [1_000_000.0, 1_000_001.0, -3.25, 1e-9]
    assert len({*columns.distinct(edges)}) == 4
