"""What the data contract says of an uploaded file, as a page: whether it was accepted, what is wrong, what changed."""

from collections.abc import Sequence

from noria import drift
from noria.contract import Report
from noria.report import drifts, violations
from noria.report.html import Html, join, tag
from noria.report.numbers import distance, figure, span
from noria.report.page import Section, Verdict, aside, commands, names, page, tiles
from noria.units import count

_COLUMNS = 200


def render_contract(report: Report) -> str:
    """One HTML document without anything beside it. A pure function: the same report gives the same bytes."""
    wrong = [violation for violation in report.violations if violation.severity == "reject"]
    return page(
        kind="Upload",
        subject=report.filename,
        about=_about(report),
        verdict=_verdict(report, len(wrong)),
        figures=_figures(report),
        sections=[
            Section("violations", "What is wrong", _violations(report)),
            Section("shift", "How it differs from training", _shift(report)),
            Section("columns", "Columns", _columns(report.columns)),
            Section("next", "What to do next", _next(report) if wrong else None),
        ],
        end="Noria. This page fetches nothing and runs no script.",
    )


def _about(report: Report) -> list[str]:
    events = (
        f"events of {span(report.first_event, report.last_event)}" if report.first_event and report.last_event else None
    )
    identity = f"SHA-256 {report.sha256[:12]}" if report.sha256 else "not read"
    return [*([events] if events else []), identity, f"for {report.model}"]


def _verdict(report: Report, wrong: int) -> Verdict:
    warnings = len(report.violations) - wrong
    warned = f"{count(warnings, 'warning')}." if warnings else "Nothing to warn of."
    if report.accepted:
        said = f"The file is a dataset of {count(report.rows, 'row')}."
        return Verdict(kind="ok", word="Accepted", said=said, more=join(warned))
    said = f"The file was refused: {count(wrong, 'rule')} of the contract {'is' if wrong == 1 else 'are'} broken."
    return Verdict(
        kind="breach", word="Refused", said=said, more=join("It is in quarantine; nothing was trained. ", warned)
    )


def _figures(report: Report) -> Html:
    return tiles((f"{report.rows:,}", "rows"), (f"{len(report.columns):,}", "columns"), (f"{report.bytes:,}", "bytes"))


def _violations(report: Report) -> Html | None:
    if not report.violations:
        return None
    return violations.listed("Rules of the contract that the file breaks", report.violations)


def _shift(report: Report) -> Html | None:
    found = report.shift
    if found is None or not found.features:
        return aside(report.no_shift) if report.no_shift else None
    return join(tag("p", _told(found), class_="lead"), drifts.listed(found))


def _told(found: drift.Report) -> str:
    limit = f"a PSI above {figure(found.threshold)} that is not by chance"
    largest = f"the largest PSI is {distance(found.max_psi)}"
    if not found.drifted:
        return f"No column differs from what the live model was trained on by {limit}; {largest}."
    return f"{count(len(found.drifted), 'column')} of {len(found.features)} with {limit}; {largest}."


def _columns(columns: Sequence[str]) -> Html | None:
    return tag("p", names(columns, most=_COLUMNS)) if columns else None


def _next(report: Report) -> Html:
    return join(
        tag("p", "Mend the file where it comes from, see whether it is accepted now, and upload it again:"),
        commands(
            f"noria validate FILE --model {report.model}",
            f"noria upload {report.model} FILE",
        ),
    )
