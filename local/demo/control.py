"""The control: a second model whose requests do not change. Whatever is watched of it must stay quiet."""

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from local.cloud import REPOSITORY
from local.demo import flights
from local.demo.scenes import YEAR, Play, expect
from local.demo.traffic import BATCH, predict
from local.demo.world import World
from noria.ledger import Entry, Kind

CONTROL = "flight-control"
WINDOWS, ROWS = 3, 800


def write_models(folder: Path) -> Path:
    """The specs of this repository, and flight-delay's under the control's name with one instance, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (REPOSITORY / "models").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    spec = yaml.safe_load((REPOSITORY / "models" / "flight-delay.yaml").read_text(encoding="utf-8"))
    serve = {"mode": "realtime", "count": 1, "strategy": "all_at_once", "bake": "2m"}
    text = yaml.safe_dump({**spec, "model": CONTROL, "serve": serve}, sort_keys=False)
    (folder / f"{CONTROL}.yaml").write_text(text, encoding="utf-8")
    return folder


@dataclass
class Control:
    """January's flights are learnt from, and asked about again and again, in new samples of the same rows."""

    world: World
    play: Play

    def learn(self) -> None:
        """Upload; the training runs while other scenes play."""
        self.world.upload("2013-01.csv", flights.month(YEAR + 1))

    def go_live(self) -> None:
        world = self.world
        trained = world.wait_for(Kind.TRAINING_SUCCEEDED, after=0, never=[Kind.TRAINING_FAILED], patience=240)
        world.noria("approve", str(trained.details["package"]), "--reason", "the control")
        deployed = world.wait_for(Kind.DEPLOYED, after=0, never=[Kind.DEPLOYMENT_FAILED, Kind.ROLLED_BACK])
        world.story.check("the control is live: a model whose requests will not change", detail=deployed.summary)

    def stays_quiet(self) -> None:
        """Windows of rows drawn from those that it was trained on: every monitor looks, and none speaks."""
        world = self.world
        rows = self.play.rows(1)
        learnt = rows[: int(len(rows) * (1 - self.play.spec.train.holdout))]
        draw = random.Random(7)  # noqa: S311 - the same flights each time, not a secret
        quiet = [self._window([draw.choice(learnt) for _ in range(ROWS)]) for _ in range(WINDOWS)]
        spoke = [f"{entry.summary}" for entry in quiet if entry.details["breached"]]
        expect(not spoke, f"nothing changed for the control, and a monitor spoke: {spoke}")
        world.story.check(
            f"{WINDOWS} windows of the control: nothing changed, and no monitor speaks", detail=quiet[-1].summary
        )
        alarms = world.client("cloudwatch").describe_alarms(AlarmNamePrefix=world.endpoint, StateValue="ALARM")
        raised = [alarm["AlarmName"] for alarm in alarms["MetricAlarms"]]
        expect(not raised, f"alarms of the control are raised: {raised}")
        decided = [e for e in world.entries() if e.kind in {Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED}]
        asked = [entry for entry in decided if entry.details["cause"] != "first"]
        expect(not asked, f"somebody asked to retrain the control: {[e.summary for e in asked]}")
        world.story.check("no alarm of it is raised, and nobody asked to train it anew")

    def _window(self, rows: list[dict[str, str]]) -> Entry:
        world, mark = self.world, self.world.last_entry()
        # Captured times have whole seconds: what is asked in the second of going live would count as before it.
        since = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        time.sleep((since - datetime.now(UTC)).total_seconds())
        predict(world, [self.play.instance(row) for row in rows])
        world.wait_for_captured(since, records=-(-len(rows) // BATCH))
        world.noria("monitor", world.model, "--since", since.isoformat())
        return world.wait_for(Kind.MONITORED, after=mark, where=lambda e: e.subject.startswith(since.isoformat()))
