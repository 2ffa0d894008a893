"""python -m local.demo: start a cloud, deploy, play the scenes, tell the story, end everything."""

import argparse
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from local.cloud import REPOSITORY, WORK, LocalCloud
from local.demo import page
from local.demo.control import CONTROL, Control, write_models
from local.demo.display import Display, closing_tables
from local.demo.faults import Fault
from local.demo.scenes import Play
from local.demo.story import Story
from local.demo.world import Pager, World
from local.deployment import deploy
from noria import spec

MODEL = "flight-delay"
TIME_SCALE = 60.0
"""A ten-minute bake takes ten seconds; an alarm's minute takes one."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=4567)
    parser.add_argument("--page", type=Path, default=WORK / "demo.html", help="where the closing page is written")
    options = parser.parse_args()

    console = Console()
    story = Story(listener=Display(console))
    model = spec.load(REPOSITORY / "models" / f"{MODEL}.yaml")
    root = WORK / "demo"
    if root.exists():
        shutil.rmtree(root)
    begin = time.monotonic()
    cloud = LocalCloud(root=root, port=options.port, time_scale=TIME_SCALE)
    try:
        play_all(cloud, story, model)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/]")
        return 130
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the story so far is told, and the exit says so
        if not any(scene.failure for scene in story.scenes):
            console.print(f"[red]{error}[/]")
    seconds = time.monotonic() - begin
    closing_tables(console, story)
    page.write(story, options.page, seconds=seconds, drift_limit=model.monitor.psi)
    _verdict(console, story, seconds=seconds, written=options.page, logs=root / "logs")
    return 0 if story.good else 1


def play_all(cloud: LocalCloud, story: Story, model: spec.ModelSpec) -> None:
    """Raises what the first scene that fails raises; the cloud is ended either way."""
    with ExitStack() as ending:
        with story.scene("An empty cloud gets every stack of `cdk deploy`"):
            begin = time.monotonic()
            story.waiting_for("starting the local cloud")
            ending.enter_context(cloud)
            story.check("a local cloud answers, IAM and TLS on", detail=cloud.endpoint, since=begin)
            begin = time.monotonic()
            stacks = deploy(cloud, models=write_models(cloud.root / "models"), progress=story.waiting_for)
            story.check("bootstrapped and deployed by the unmodified CDK", detail=", ".join(stacks), since=begin)
        world = World(cloud=cloud, model=model.model, story=story)
        play = Play(world=world, spec=model, pager=Pager(world))
        control = Control(world=World(cloud=cloud, model=CONTROL, story=story), play=play)
        with story.scene("January becomes a model, and goes live"):
            play.first_model()
        control.learn()
        with story.scene("A broken file is quarantined, with every reason"):
            play.broken_upload()
        with story.scene("July is not January: drift, retraining, canary, live"):
            play.drift_and_retraining()
        with story.scene("September has landed: late labels, an explanation, and a report"):
            play.late_labels(WORK / "report.html")
        with story.scene("A control whose requests do not change stays quiet"):
            control.go_live()
            control.stays_quiet()
        for fault, reported in ((Fault.FAILS, "success"), (Fault.SWAPPED, "failure")):
            with story.scene(f"A bad version is rolled back: {fault}; the stack reports {reported}"):
                play.bad_candidate(fault, reported)
        with story.scene("The whole story"):
            play.told()


def _verdict(console: Console, story: Story, *, seconds: float, written: Path, logs: Path) -> None:
    console.print()
    if story.good:
        console.print(f"[bold green]Every scene came out as it should[/], in {seconds:.0f} s. The page: {written}")
        return
    for scene in story.scenes:
        if scene.failure:
            console.print(f"[bold red]Scene {scene.number}, {scene.title}[/]")
            console.print(scene.failure, markup=False)
    console.print(f"The cloud's logs are in {logs}; the page so far: {written}")


if __name__ == "__main__":
    sys.exit(main())
