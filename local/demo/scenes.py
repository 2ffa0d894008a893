"""The scenes: what a user does, and what must come of it."""

import csv
import io
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local.demo import flights
from local.demo.faults import Fault
from local.demo.packages import register
from local.demo.story import Month, Turn, Unexpected
from local.demo.traffic import BATCH, predict, steady
from local.demo.world import Pager, World
from noria import drift, profile
from noria.ledger import Entry, Kind
from noria.monitoring import Run
from noria.spec import FeatureType, ModelSpec

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
SCHEDULE = ("hour", "carrier", "origin", "dest", "distance")
YEAR = 201300
_SPOKEN_BY = {Fault.FAILS: ("rollback-errors", "rollback-golden"), Fault.SWAPPED: ("rollback-golden",)}
"""Alarms of which one takes a version back. Who cannot answer some clients answers golden rows no better: the first to
be evaluated speaks."""


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise Unexpected(otherwise)


@dataclass
class Play:
    """The scenes share what earlier ones found: the packages that went live."""

    world: World
    spec: ModelSpec
    pager: Pager
    live: str = ""
    prediction: str = ""
    """The inference id of one that was answered and explained."""
    sample_rows: int = 1500

    # --- rows

    def rows(self, month: int) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(flights.month(YEAR + month).decode())))

    def instance(self, row: dict[str, str]) -> dict[str, Any]:
        """A CSV row as a caller sends it: features only, typed, without what is missing."""
        read = {FeatureType.CATEGORY: str, FeatureType.INTEGER: int, FeatureType.NUMBER: float}
        return {
            name: read[feature.type](row[name]) if row[name] != "" else None
            for name, feature in self.spec.features.items()
        }

    def sample(self, month: int) -> list[dict[str, str]]:
        """The same rows of a month each time, spread evenly over it."""
        rows = self.rows(month)
        return rows[:: max(1, len(rows) // self.sample_rows)][: self.sample_rows]

    # --- scenes

    def first_model(self) -> None:
        """January becomes a model, and the model goes live."""
        world, story = self.world, self.world.story
        begin, clock, mark = time.monotonic(), time.time(), world.last_entry()
        key = world.upload("2013-01.csv", flights.month(YEAR + 1))
        accepted = world.wait_for(Kind.DATASET_ACCEPTED, after=mark, never=[Kind.DATASET_QUARANTINED])
        story.check("January is uploaded and accepted as a dataset", detail=accepted.summary, since=begin)
        expect(world.keys(f"{world.model}/datasets/{accepted.subject}/manifest.json"), "the dataset has no manifest")
        trained = self._trained(after=mark)
        package = str(trained.details["package"])
        self._approve(package, "first model: the gates passed, nothing is live yet")
        deployed = world.wait_for(Kind.DEPLOYED, after=mark, never=[Kind.DEPLOYMENT_FAILED, Kind.ROLLED_BACK])
        self.live = package
        story.check("approved, and live", detail=deployed.summary, since=begin)
        score = predict(world, [self.instance(self.sample(2)[0])])[0]
        expect(0.0 <= score <= 1.0, f"a score must be a probability, not {score}")
        story.check("a flight of February is answered", detail=f"probability of a late arrival {score:.2f}")
        self._turn(f"upload {key.rsplit('/', 1)[-1]} → live", begin, clock, trained)

    def broken_upload(self) -> None:
        """A broken file is quarantined, with every reason, and nothing else happens."""
        world, story = self.world, self.world.story
        begin, mark = time.monotonic(), world.last_entry()
        broken = self._break(flights.month(YEAR + 1))
        key = world.upload("2013-01-broken.csv", broken)
        entry = world.wait_for(Kind.DATASET_QUARANTINED, after=mark, never=[Kind.DATASET_ACCEPTED])
        story.check("a broken copy of January is quarantined", detail=entry.summary, since=begin)
        beside = [name for name in world.keys(f"{world.model}/quarantine/") if name.endswith("2013-01-broken.csv")]
        expect(len(beside) == 1, f"one quarantined file expected, found {beside}")
        report = world.read_json(f"{beside[0].rsplit('/', 1)[0]}/report.json")
        violations = report["violations"]
        for column, what in (
            ("dewp", "the renamed column"),
            ("temp", "strings in a number"),
            ("hour", "an impossible hour"),
            (None, "the truncated row"),
        ):
            found = [v for v in violations if v["column"] == column and (v["rows"] or v["lines"] or column == "dewp")]
            expect(found, f"the report does not name {what}: {violations}")
            where = found[0]["rows"] or found[0]["lines"]
            story.check(f"the report names {what}", detail=found[0]["message"] + (f" (rows {where})" if where else ""))
        for copy in (key, beside[0]):
            same = world.s3.get_object(Bucket=world.bucket, Key=copy)["Body"].read() == broken
            expect(same, f"{copy} is not what was uploaded")
        story.check("nothing is lost: the upload and the quarantined copy are byte for byte what was sent")
        page = world.wait_until(
            "page about the quarantined file", lambda: [p for p in self.pager.pages() if "2013-01-broken.csv" in p]
        )
        story.check("a page went out", detail=page[0].splitlines()[0])
        started = [e for e in world.entries() if e.kind is Kind.TRAINING_STARTED and e.number > mark]
        expect(not started, "a broken file must not train anything")
        story.check("nothing was trained on it")

    def drift_and_retraining(self) -> None:
        """Real later months flow; July is not January; the model is trained anew and replaced under traffic."""
        world, story = self.world, self.world.story
        mark = world.last_entry()
        with ThreadPoolExecutor(max_workers=5) as pool:
            list(pool.map(lambda month: world.upload(f"2013-{month:02}.csv", flights.month(YEAR + month)), range(2, 7)))
        for _ in range(5):
            seen = world.wait_for(Kind.TRAINING_HELD, after=mark, never=[Kind.DATASET_QUARANTINED])
            mark = seen.number
        accepted = [entry for entry in world.entries() if entry.kind is Kind.DATASET_ACCEPTED]
        expect(len(accepted) == 6, f"six datasets expected, the ledger has {len(accepted)}")
        story.check("February to June are uploaded at once, accepted, and held until the model needs them")
        mark = world.last_entry()
        for month in range(2, 8):
            self._measure(month)
        story.check("the first model answers February to July", detail=self._aucs())

        since = datetime.now(UTC).replace(microsecond=0)  # captured times have whole seconds
        predict(world, [self.instance(row) for row in self.sample(7)])
        world.wait_for_captured(since, records=self.sample_rows // BATCH)
        begin, clock = time.monotonic(), time.time()
        world.noria("monitor", world.model, "--since", since.isoformat())
        # The schedule's own windows are told beside the one that was asked for.
        monitored = world.wait_for(Kind.MONITORED, after=mark, where=lambda e: e.subject.startswith(since.isoformat()))
        report = Run.model_validate(world.read_json(str(monitored.details["report"]))).drift
        story.psi = {name: feature.psi for name, feature in report.features.items()}
        drifted = set(report.drifted)
        expect(drifted & set(WEATHER), f"drift in the weather expected: {monitored.summary}")
        expect(
            not drifted & set(SCHEDULE), f"no drift in the schedule expected, found {sorted(drifted & set(SCHEDULE))}"
        )
        story.check(
            "July's window has drifted in the weather, not in the schedule", detail=monitored.summary, since=begin
        )
        requested = world.wait_for(Kind.RETRAINING_REQUESTED, after=mark, never=[Kind.RETRAINING_DECLINED])
        story.check("the alarm asks for a retraining", detail=requested.summary, since=begin)

        trained = self._trained(after=mark)
        package = str(trained.details["package"])
        evaluation = json.loads(
            world.read_uri(world.package(package)["CustomerMetadataProperties"]["noria:evaluation"])
        )
        metric = self.spec.primary_metric.value
        mine, champion = evaluation["metrics"][metric]["value"], evaluation["champion"]["metrics"][metric]["value"]
        expect(mine > champion, f"the challenger's {metric} {mine:.3f} does not beat the champion's {champion:.3f}")
        story.check(
            "the challenger beats the champion on the newest slice",
            detail=f"{metric} {mine:.3f} against {champion:.3f}",
        )
        with steady(world, [self.instance(row) for row in self.sample(7)], "the canary of the new model") as traffic:
            self._approve(package, f"drift in {', '.join(sorted(drifted))}; {metric} {mine:.3f} against {champion:.3f}")
            deployed = world.wait_for(Kind.DEPLOYED, after=mark, never=[Kind.DEPLOYMENT_FAILED, Kind.ROLLED_BACK])
        self.live = package
        story.check("approved, canary, baked, live", detail=deployed.summary, since=begin)
        expect(traffic.failed == 0, f"{traffic.failed} of {traffic.answered + traffic.failed} requests failed")
        story.check("no request failed while traffic moved over", detail=f"{traffic.answered} answered")
        self._turn("drift alarm → retrained → live", begin, clock, trained)
        for month in range(7, 10):
            self._measure(month)
        story.check("the new model answers July to September", detail=self._aucs())

    def late_labels(self, page: Path) -> None:
        """September's flights have landed: how right was the model, why, and what does the report show?"""
        world, story = self.world, self.world.story
        # Captured times have whole seconds: what was asked in the one before must not look as if it waited for a label.
        rows, since = self.sample(9), datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        time.sleep((since - datetime.now(UTC)).total_seconds())
        called = f"september-{since:%H%M%S}"
        predict(world, [self.instance(row) for row in rows], called=called)
        world.wait_for_captured(since, records=-(-len(rows) // BATCH))
        begin, mark = time.monotonic(), world.last_entry()
        told = [f"{called}-{n // BATCH},{n % BATCH},{row[self.spec.target]}" for n, row in enumerate(rows)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "september.csv"
            file.write_text("\n".join([f"inference_id,row,{self.spec.target}", *told]) + "\n", encoding="utf-8")
            world.noria("label", world.model, str(file))
        joined = world.wait_for(Kind.LABELS_JOINED, after=mark, never=[Kind.LABELS_REFUSED])
        expect(joined.details["matched"] == len(rows), f"{len(rows)} labels should match: {joined.summary}")
        metric = self.spec.primary_metric.value
        expect(
            metric in joined.details, f"all labels of these predictions are known, so {metric} is too: {joined.summary}"
        )
        story.check("the outcomes of September arrive, and are joined with what was predicted", detail=joined.summary)
        self.prediction = f"{called}-0"
        why = world.noria("explain", world.model, self.prediction)
        parts = why["average"] + sum(feature["contribution"] for feature in why["features"])
        expect(abs(parts - why["explained"]) < 1e-6, f"the parts of {why} are not the whole")
        most = ", ".join(f"{f['feature']} {f['contribution']:+.2f}" for f in why["features"][:3])
        story.check(
            "noria explain says what one prediction rests on",
            detail=f"{why['explained']:.2f} = {why['average']:.2f} on average, {most}, …",
        )
        world.noria("monitor", world.model, "--since", since.isoformat())
        watched = world.wait_for(Kind.MONITORED, after=mark, where=lambda e: e.subject.startswith(since.isoformat()))
        world.noria("report", world.model, "--out", str(page))
        expect(page.stat().st_size < 1_000_000, f"{page} has {page.stat().st_size:,} bytes")
        story.check("every monitor looks at the window; the page", detail=f"{watched.summary} {page}", since=begin)

    def bad_candidate(self, fault: Fault, ending: str) -> None:
        """A bad version meets the canary's alarms. `ending` is what the stack then reports."""
        world, story = self.world, self.world.story
        world.set_rollback_reports(ending)
        live_before = self.live
        candidate = register(world, live_before, fault)
        begin, mark = time.monotonic(), world.last_entry()
        with steady(world, [self.instance(row) for row in self.sample(8)], f"the version of which {fault}") as traffic:
            self._approve(candidate, "looked fine on paper")
            rolled_back = world.wait_for(Kind.ROLLED_BACK, after=mark, never=[Kind.DEPLOYED])
            expect(
                any(alarm in rolled_back.summary for alarm in _SPOKEN_BY[fault]),
                f"{' or '.join(_SPOKEN_BY[fault])} should have rolled it back: {rolled_back.summary}",
            )
            story.check("the canary's alarm rolls it back", detail=rolled_back.summary, since=begin)
            world.wait_until(
                "serving stack that tells the truth",
                lambda: (
                    world.serving_parameters()["ModelPackageArn"] == live_before
                    and self._stack_status().endswith("_COMPLETE")
                    and self.serving_package() == live_before
                ),
            )
        story.check(
            f"the stack, which reported {ending}, tells the truth: the old version is wanted, and it is live",
            detail=self._stack_status(),
            since=begin,
        )
        metadata = world.package(candidate)["CustomerMetadataProperties"]
        expect(metadata.get("noria:outcome") == "rolled-back", f"the package is not marked: {metadata}")
        page = world.wait_until(
            "page about the rollback",
            lambda: [p for p in self.pager.pages() if "rolled back" in p and candidate.rsplit(":", 1)[-1] in p],
        )
        story.check("the package is marked, and a page went out", detail=page[0].splitlines()[0])
        total = traffic.answered + traffic.failed
        expect(traffic.failed < 0.2 * total, f"{traffic.failed} of {total} requests failed: more than a canary's share")
        story.check(
            "the old version answered throughout",
            detail=f"{traffic.failed} of {total} requests met the candidate's fault",
        )
        mark = world.last_entry()
        self._approve(candidate, "trying my luck")
        refused = world.wait_for(Kind.DEPLOYMENT_REFUSED, after=mark, never=[Kind.DEPLOYMENT_REQUESTED])
        story.check("approved once more, it is refused", detail=refused.summary)

    def told(self) -> None:
        """`noria status`, the ledger and its locked copies tell the same story, back to who sent the data."""
        world, story = self.world, self.world.story
        status = world.noria("status", world.model)[0]
        expect(status["package"] == self.live, f"status says {status['package']} is live, not {self.live}")
        story.check("noria status knows what is live, since when and from which data", detail=status["summary"])
        entries = world.entries()
        events = world.noria("events", world.model, "--limit", "1000")
        numbers = [event["number"] for event in events]
        moments = [datetime.fromisoformat(event["at"]) for event in events]
        expect(sorted(numbers) == [*range(1, len(numbers) + 1)], f"noria events shows {numbers}, not the ledger")
        expect(moments == sorted(moments, reverse=True), f"noria events shows {numbers}, not newest first")
        expect(len(numbers) >= len(entries), f"noria events shows {len(numbers)} of {len(entries)} entries")
        story.ledger = [entry.model_dump(mode="json") for entry in entries]
        story.check("noria events tells every step and why", detail=f"{len(entries)} entries")
        verified = world.wait_until("locked copy of each entry", self._verified)
        story.check(
            "noria ledger verify finds chain, entries and locked copies unchanged",
            detail=f"{verified['entries']} entries, {verified['copies']} copies",
        )
        walk = world.noria("trace", self.prediction, "--model", world.model)["steps"]
        unknown = [step["what"] for step in walk if not step["known"]]
        expect(not unknown, f"noria trace does not know: {unknown}")
        package = next(step["facts"]["arn"] for step in walk if step["step"] == "package")
        expect(package == self.live, f"noria trace says that {package} answered, not {self.live}")
        story.check(
            "noria trace walks from a prediction to who sent what it was learnt from",
            detail=" ← ".join(dict.fromkeys(step["step"] for step in walk)),
        )

    def _verified(self) -> Any:
        """What `noria ledger verify` says once each entry has its copy, which comes moments after it."""
        found = self.world.noria("ledger", "verify")
        return found if not found["waiting"] else None

    # --- parts of scenes

    def _trained(self, *, after: int) -> Entry:
        world, story = self.world, self.world.story
        begin = time.monotonic()
        trained = world.wait_for(Kind.TRAINING_SUCCEEDED, after=after, never=[Kind.TRAINING_FAILED], patience=240)
        story.check("prepared, trained, evaluated, past its gates, registered", detail=trained.summary, since=begin)
        return trained

    def _approve(self, package: str, reason: str) -> None:
        self.world.story.waiting_for("approving")
        self.world.noria("approve", package, "--reason", reason)

    def _turn(self, cause: str, begin: float, clock: float, trained: Entry) -> None:
        jobs = self.world.job_seconds(trained.subject)
        waiting = self.world.endpoint_seconds(clock)
        self.world.story.turns.append(Turn(cause=cause, total=time.monotonic() - begin, jobs=jobs, waiting=waiting))

    def _measure(self, month: int) -> None:
        """Ask the live model about flights whose outcome is known; compare the month with the training data."""
        self.world.story.waiting_for(f"asking about flights of month {month}")
        sample = self.sample(month)
        scores = predict(self.world, [self.instance(row) for row in sample])
        baseline = profile.Profile.model_validate_json(
            self.world.read_uri(self.world.package(self.live)["CustomerMetadataProperties"]["noria:baseline"])
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "month.csv"
            path.write_bytes(_csv(sample))
            window = profile.profile(profile.Source.files(path), self.spec, baseline.edges)
        report = drift.compare(baseline, window, self.spec)
        self.world.story.months.append(
            Month(
                name=datetime(2013, month, 1, tzinfo=UTC).strftime("%B"),
                rows=len(sample),
                auc=auc([int(row[self.spec.target]) for row in sample], scores),
                max_psi=report.max_psi or 0.0,
                drifted=report.drifted,
                package=f"version {self.live.rsplit('/', 1)[-1]}",
            )
        )

    def _aucs(self) -> str:
        version = f"version {self.live.rsplit('/', 1)[-1]}"
        months = [month for month in self.world.story.months if month.package == version]
        return "AUC " + ", ".join(f"{month.name[:3]} {month.auc:.3f}" for month in months)

    def _stack_status(self) -> str:
        stacks = self.world.client("cloudformation").describe_stacks(
            StackName=self.world.names.stack(self.world.model, "serving")
        )["Stacks"]
        return str(stacks[0]["StackStatus"])

    def serving_package(self) -> str:
        status = self.world.noria("status", self.world.model)[0]
        return str(status["package"])

    def _break(self, good: bytes) -> bytes:
        """A renamed column, strings in a number, an impossible hour and a truncated last row."""
        lines = good.decode().splitlines()[:5001]
        header = lines[0].split(",")
        temp, hour = header.index("temp"), header.index("hour")
        rows = [line.split(",") for line in lines[1:]]
        for row in rows[10:14]:
            row[temp] = "warm"
        rows[20][hour] = "25"
        header[header.index("dewp")] = "dew_point"
        text = "\n".join([",".join(header), *(",".join(row) for row in rows)])
        return text[: text.rfind(",")].rsplit(",", 2)[0].encode()


def _csv(rows: Sequence[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Area under the ROC curve, by ranks; ties share theirs."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks = [0.0] * len(scores)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and scores[order[end + 1]] == scores[order[start]]:
            end += 1
        for position in range(start, end + 1):
            ranks[order[position]] = (start + end) / 2 + 1
        start = end + 1
    positives = sum(labels)
    negatives = len(labels) - positives
    rank_sum = sum(rank for rank, label in zip(ranks, labels, strict=True) if label)
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
