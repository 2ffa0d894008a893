"""python -m local.gameday: start a cloud, let a model go live, break things, say what noticed and what mended them."""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from local.cloud import REPOSITORY, WORK, LocalCloud
from local.demo import flights
from local.demo.control import CONTROL, Control, write_models
from local.demo.display import Display
from local.demo.scenes import YEAR, Play
from local.demo.story import Story
from local.demo.world import Pager, World
from local.deployment import deploy
from local.gameday.breaks import BREAKS, Day
from local.gameday.flood import Flood, mixed
from local.gameday.score import Score, table
from noria import spec

MODEL = "flight-delay"
TIME_SCALE = 60.0
SETTLING = 4 * 3600.0
"""Seconds within which a flood's last upload must have ended."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.gameday", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="draws the order (default: a new one)")
    parser.add_argument("--only", action="append", choices=sorted(BREAKS), help="this break alone; several times")
    parser.add_argument("--flood", type=int, metavar="UPLOADS", help="nothing but a flood of so many uploads")
    parser.add_argument("--port", type=int, default=4568)
    options = parser.parse_args()

    console, root = Console(), WORK / "gameday"
    if root.exists():
        shutil.rmtree(root)
    story = Story(listener=Display(console))
    # A flood takes what time it takes; ticks that come sixty times as often would only be in its way.
    with LocalCloud(root=root, port=options.port, time_scale=1.0 if options.flood else TIME_SCALE) as cloud:
        untrained = [MODEL, CONTROL] if options.flood else [CONTROL]
        day = prepare(cloud, story, models=specs(root / "models", untrained=untrained), live=not options.flood)
        if options.flood:
            return flood(day, console, uploads=options.flood)
        chosen = [name for name in BREAKS if not options.only or name in options.only]
        random.Random(options.seed).shuffle(chosen)  # noqa: S311 - an order, no secret
        scores = break_all(day, chosen)
    console.print()
    console.print(table(scores, seed=options.seed))
    for score in scores:
        for problem in score.problems:
            console.print(f"[bold red]✗[/] {score.name}: {problem}", highlight=False)
    console.print(f"The cloud's logs are in {root / 'logs'}; the same order again: make gameday SEED={options.seed}")
    return 0 if all(score.good for score in scores) else 1


def specs(folder: Path, *, untrained: Sequence[str]) -> Path:
    """The demo's models; those that nothing here is to be learnt of only say when they would be."""
    write_models(folder)
    for model in untrained:
        path = folder / f"{model}.yaml"
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        described["retrain"]["dry_run"] = True
        path.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return folder


def prepare(cloud: LocalCloud, story: Story, *, models: Path, live: bool) -> Day:
    """Deploy to a cloud, and let January's model go live if it is wanted."""
    world = World(cloud=cloud, model=MODEL, story=story)
    with story.scene("A cloud to break"):
        stacks = deploy(cloud, models=models, progress=story.waiting_for)
        story.check("deployed", detail=", ".join(stacks))
    play = Play(world=world, spec=spec.load(REPOSITORY / "models" / f"{MODEL}.yaml"), pager=Pager(world))
    if live:
        with story.scene("January's model goes live"):
            play.first_model()
    _, *others = flights.month(YEAR + 3).decode().splitlines()
    return Day(
        play=play,
        control=Control(world=World(cloud=cloud, model=CONTROL, story=story), play=play),
        lines=mixed([*flights.month(YEAR + 2).decode().splitlines(), *others], play.spec.target),
    )


def break_all(day: Day, names: Sequence[str]) -> list[Score]:
    """One break after the other; one that goes wrong spoils no other's score."""
    scores = []
    for name in names:
        action, quiet = BREAKS[name]
        score = Score(name, quiet=quiet)
        scores.append(score)
        pages = day.pages()
        try:
            with day.world.story.scene(name[0].upper() + name[1:]):
                action(day, score)
                if score.recovered is not None:
                    day.world.story.check(f"{score.told}; well after {score.recovered:.1f} s", detail=score.how)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of this break
            score.failure = f"{type(error).__name__}: {error}"
        if quiet and (woken := [page for page in day.play.pager.pages()[pages:] if "dead-letters" in page]):
            score.was_detected(woken[0].splitlines()[0])
    return scores


def flood(day: Day, console: Console, *, uploads: int) -> int:
    sent = Flood(loud=day.world, quiet=day.control.world, lines=day.lines, uploads=uploads)
    with day.world.story.scene(f"A flood of {uploads:,} uploads"):
        sent.send()
        day.world.story.check("every upload is acknowledged")
        outcome = sent.outcome(patience=SETTLING, progress=day.world.story.waiting_for)
    console.print(outcome.text, highlight=False)
    for problem in outcome.problems:
        console.print(f"[bold red]✗[/] {problem}", highlight=False)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
