"""What was found, as a page: false alarms on data that did not change, and what of a change is found."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.monitors.runs import EXPLAINED, LABELLED, Found, Said, raised
from benchmarks.serving.report import Machine
from noria.intervals import wilson
from noria.monitors import monitors
from noria.spec import ModelSpec

HEAD = """\
# False alarms and power of the monitors

Written by `make benchmark-monitors`; nothing here is set by hand.

{machine.when:%Y-%m-%d %H:%M} UTC, {machine.processor}, {machine.cores} cores: {seconds:.0f} seconds. The load average
before was {machine.load:.1f}; where it is far above 0, others used the machine too.

Real rows are drawn at random, with replacement: a baseline of {baseline:,}, and then window after window from the same
rows, so that nothing has changed. Each window goes through the functions that `monitor_model` calls: profile,
comparison, contract, late labels, attribution, findings, all at a spec's default settings. flights are four months of
New York's flights of 2013 (14 features, binary); digits (64 features, ten classes) and diabetes (10 features, a number)
are scikit-learn's. Each has a model that was trained on other rows. Each baseline is followed by 50 windows of its own.
Every {labelled}th window is captured requests with labels, and every {explained}th is explained; the others are files
of rows.

A run is one window under all monitors. Its alarms are CloudWatch's: `2 of 3` windows must breach (`monitor.when`), or
one, where labels speak.
"""


@dataclass(frozen=True)
class Results:
    specs: dict[str, ModelSpec]
    said: Sequence[Said]
    found: Sequence[Found]
    seconds: float


def alarms_of(said: Said, spec: ModelSpec) -> dict[str, int]:
    """How often each monitor's alarm was raised."""
    when = spec.monitor.when
    return {
        monitor.name: raised(said.of(monitor.name), breaching=when.breaching, of=when.of)
        if monitor.clock == "window"
        else raised(said.of(monitor.name), breaching=1, of=1)
        for monitor in monitors(spec)
    }


def markdown(results: Results, machine: Machine) -> str:
    return "\n".join(
        [
            HEAD.format(
                machine=machine,
                seconds=results.seconds,
                baseline=results.said[0].task.baseline_rows,
                labelled=LABELLED,
                explained=EXPLAINED,
            ),
            *_false_alarms(results),
            *_by_monitor(results),
            *_power(results),
        ]
    )


def _false_alarms(results: Results) -> list[str]:
    lines = ["## Nothing changed", "", "| rows from | rows a window | baselines | runs | runs with a breach | alarms |"]
    lines.append("|---|---|---|---|---|---|")
    runs = alarmed = 0
    for world, rows in dict.fromkeys((said.task.world, said.task.rows) for said in results.said):
        group = [s for s in results.said if (s.task.world, s.task.rows) == (world, rows)]
        count = sum(len(s.windows) for s in group)
        breached = sum(any(w is True for w in window.values()) for s in group for window in s.windows)
        alarms = sum(sum(alarms_of(s, results.specs[world]).values()) for s in group)
        lines.append(f"| {world} | {rows:,} | {len(group)} | {count:,} | {breached} | {alarms} |")
        runs, alarmed = runs + count, alarmed + alarms
    most = wilson(min(1.0, alarmed / runs), runs).high
    met = "met" if alarmed < runs / 1000 else "missed"
    lines += [
        "",
        f"**{alarmed} false alarm{'' if alarmed == 1 else 's'} in {runs:,} runs**; at most {most:.2%} (95 %, Wilson).",
    ]
    return [*lines, f"Goal, fewer than 1 in 1,000 runs: **{met}**.", ""]


def _by_monitor(results: Results) -> list[str]:
    lines = ["| monitor | windows judged | breaches | of 1,000 | alarms |", "|---|---|---|---|---|"]
    names = dict.fromkeys(m.name for spec in results.specs.values() for m in monitors(spec))
    for name in names:
        group = [s for s in results.said if s.windows and name in s.windows[0]]
        judged = [said for s in group for said in s.of(name)]
        if judged:
            alarms = sum(alarms_of(s, results.specs[s.task.world])[name] for s in group)
            lines.append(
                f"| {name} | {len(judged):,} | {sum(judged)} | {1000 * sum(judged) / len(judged):.2f} | {alarms} |"
            )
    return [*lines, ""]


def _power(results: Results) -> list[str]:
    lines = [
        "## One feature moved by half a standard deviation",
        "",
        "Each feature in turn, in two windows one after another. Found: the feature is named in one of the two. Alarm:",
        "in both, so that `2 of 3` is reached with the second window.",
        "",
        "| rows from | rows a window | features | trials | found | alarm | hardest feature (found) |",
        "|---|---|---|---|---|---|---|",
    ]
    trials = once = 0
    for found in results.found:
        every = sum(found.trials.values())
        hardest = min(found.trials, key=lambda name: found.once[name] / found.trials[name])
        share = found.once[hardest] / found.trials[hardest]
        lines.append(
            f"| {found.task.world} | {found.task.rows:,} | {len(found.trials)} | {every:,} | "
            f"{sum(found.once.values()) / every:.1%} | {sum(found.both.values()) / every:.1%} | {hardest} {share:.0%} |"
        )
        trials, once = trials + every, once + sum(found.once.values())
    least = wilson(once / trials, trials).low
    met = "met" if least > 0.95 else "missed"
    lines += ["", f"Found within two windows: {once:,} of {trials:,}, at least {least:.1%} (95 %, Wilson)."]
    return [*lines, f"Goal, to be found within two windows: **{met}**.", ""]
