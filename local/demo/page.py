"""The story as one self-contained HTML page: no script, no file beside it, charts as inline SVG."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from local.demo.story import Month, Scene, Story

_STYLE = Path(__file__).with_name("page.css")


def write(story: Story, path: Path, *, seconds: float, drift_limit: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(story, seconds=seconds, drift_limit=drift_limit), encoding="utf-8")


def render(story: Story, *, seconds: float, drift_limit: float) -> str:
    verdict = (
        '<b class="good">every scene came out as it should</b>' if story.good else '<b class="bad">not as it should</b>'
    )
    failed = sum(traffic.failed for traffic in story.traffic)
    answered = sum(traffic.answered for traffic in story.traffic)
    tiles = [
        (f"{sum(scene.done for scene in story.scenes)} / {len(story.scenes)}", "scenes as expected"),
        (f"{seconds:.0f} s", "from an empty cloud to here"),
        (f"{answered:,}", "requests answered"),
        (str(failed), "requests failed, all by the broken candidate"),
        (f"{sum(turn.orchestration for turn in story.turns):.1f} s", "of orchestration in all turns"),
    ]
    sections = [
        ("What happened", "".join(_scene(scene) for scene in story.scenes)),
        ("The model by month", _months_chart(story.months) + _months_table(story.months)),
        ("Drift of the window that raised the alarm", _drift_chart(story.psi, threshold=drift_limit)),
        (
            "Where the time went",
            _table(
                ("turn of the wheel", "total", "jobs", "baking and starting", "orchestration"),
                [
                    (t.cause, *(f"{v:.1f} s" for v in (t.total, t.jobs, t.waiting, t.orchestration)))
                    for t in story.turns
                ],
                numbers=4,
            ),
        ),
        (
            "Requests while something happened",
            _table(
                ("during", "answered", "failed", "p95"),
                [(t.during, f"{t.answered:,}", str(t.failed), f"{t.p95_ms:.0f} ms") for t in story.traffic],
                numbers=3,
            ),
        ),
        (
            "The ledger: what was decided, and why",
            _table(
                ("at", "what", "why"),
                [(str(e["at"])[11:19], str(e["kind"]).replace("_", " "), str(e["summary"])) for e in story.ledger],
            ),
        ),
    ]
    return "\n".join(
        [
            "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Noria: one turn of the wheel</title>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<style>{_STYLE.read_text()}</style></head><body>",
            "<h1>One turn of the wheel</h1>",
            "<p class='lead'>Flights of 2013, deployed from the templates that <code>cdk deploy</code> ships: ",
            f"{verdict}.</p>",
            "<div class='tiles'>",
            *(f"<div class='tile'><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in tiles),
            "</div>",
            *(f"<h2>{escape(title)}</h2>\n<div class='scroll'>{body}</div>" for title, body in sections if body),
            "</body></html>",
        ]
    )


def _scene(scene: Scene) -> str:
    rows = "".join(
        f"<tr><td class='good'>✓</td><td>{escape(check.text)}<br><span class='soft'>{escape(check.detail)}</span></td>"
        f"<td class='n'>{f'{check.seconds:.1f} s' if check.seconds else ''}</td></tr>"
        for check in scene.checks
    )
    if scene.failure:
        rows += f"<tr><td class='bad'>✗</td><td class='bad' colspan='2'>{escape(scene.failure)}</td></tr>"
    state = "good" if scene.done else "bad"
    return (
        f"<details open><summary><b class='{state}'>{scene.number}</b> {escape(scene.title)} "
        f"<span class='soft'>{scene.seconds:.1f} s</span></summary><table>{rows}</table></details>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A table whose last `numbers` columns are figures."""
    if not rows:
        return ""
    first_number = len(header) - numbers

    def css(column: int) -> str:
        return " class='n'" if column >= first_number else (" class='k'" if column == 1 and not numbers else "")

    head = "".join(f"<th{css(i) if numbers else ''}>{escape(text)}</th>" for i, text in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{css(i)}>{escape(text)}</td>" for i, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _months_table(months: Sequence[Month]) -> str:
    return _table(
        ("month", "package", "drifted features", "rows", "AUC", "largest PSI"),
        [
            (m.name, m.package, ", ".join(m.drifted) or "none", f"{m.rows:,}", f"{m.auc:.3f}", f"{m.max_psi:.2f}")
            for m in months
        ],
        numbers=3,
    )


def _months_chart(months: Sequence[Month], *, width: int = 760, height: int = 250) -> str:
    """AUC by month, a line for each package."""
    if not months:
        return ""
    names = list(dict.fromkeys(month.name for month in months))
    low = min(month.auc for month in months) - 0.02
    high = max(month.auc for month in months) + 0.02
    left, top, bottom = 46, 14, 30

    def x(name: str) -> float:
        return left + (names.index(name) + 0.5) * (width - left - 10) / len(names)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(
            f"<line x1='{left}' x2='{width}' y1='{y(value):.1f}' y2='{y(value):.1f}' stroke='var(--line)'/>"
            f"<text x='4' y='{y(value) + 4:.1f}'>{value:.2f}</text>"
        )
    parts += [f"<text x='{x(name):.1f}' y='{height - 8}' text-anchor='middle'>{escape(name)}</text>" for name in names]
    packages = list(dict.fromkeys(month.package for month in months))
    for package, colour in zip(packages, ("var(--water)", "var(--sun)", "var(--good)", "var(--ink)"), strict=False):
        own = [month for month in months if month.package == package]
        line = " ".join(f"{x(month.name):.1f},{y(month.auc):.1f}" for month in own)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2.5'/>")
        parts += [
            f"<circle cx='{x(m.name):.1f}' cy='{y(m.auc):.1f}' r='4' fill='{colour}'>"
            f"<title>{escape(package)}, {escape(m.name)}: AUC {m.auc:.3f}</title></circle>"
            for m in own
        ]
        last = own[-1]
        parts.append(
            f"<text x='{x(last.name):.1f}' y='{y(last.auc) - 10:.1f}' text-anchor='middle' "
            f"style='fill:{colour}'>{escape(package)}</text>"
        )
    return _svg("AUC by month", parts, width=width, height=height)


def _drift_chart(psi: dict[str, float], *, threshold: float, width: int = 760, row: int = 22) -> str:
    """Bars of PSI by feature, largest first; the threshold as a line. Bars end at 2, their number says the rest."""
    if not psi:
        return ""
    left, right, limit = 110, 70, 2.0

    def length(value: float) -> float:
        return max(1.0, min(value, limit) / limit * (width - left - right))

    parts = []
    ordered = sorted(psi.items(), key=lambda item: -item[1])
    for index, (feature, value) in enumerate(ordered):
        top = index * row
        colour = "var(--sun)" if value > threshold else "var(--water)"
        parts.append(
            f"<text x='{left - 8}' y='{top + 15}' text-anchor='end'>{escape(feature)}</text>"
            f"<rect x='{left}' y='{top + 4}' width='{length(value):.1f}' height='{row - 8}' fill='{colour}' rx='2'/>"
            f"<text x='{left + length(value) + 6:.1f}' y='{top + 15}'>{value:.3f}</text>"
        )
    height = len(ordered) * row + 4
    edge = left + length(threshold)
    parts.append(
        f"<line x1='{edge:.1f}' x2='{edge:.1f}' y1='0' y2='{height}' stroke='var(--bad)' stroke-dasharray='4 3'/>"
    )
    return (
        _svg("PSI by feature", parts, width=width, height=height)
        + "<p class='soft'>Population stability index against the training data; "
        + f"dashed: above {threshold:g} a feature has drifted.</p>"
    )


def _svg(label: str, parts: Sequence[str], *, width: int, height: int) -> str:
    size = f"viewBox='0 0 {width} {height}' width='{width}'"
    return f"<svg {size} role='img' aria-label='{escape(label)}'>{''.join(parts)}</svg>"
