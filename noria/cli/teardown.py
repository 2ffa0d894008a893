"""Removing an environment, or a model: every stack, users first, and what stays behind, said aloud."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

from pydantic import BaseModel

from noria.aws.cards import Cards
from noria.aws.endpoints import Endpoint
from noria.aws.flags import FlagStore
from noria.aws.leftovers import Leftovers
from noria.aws.registry import Registry
from noria.aws.serving import CONFIG_TYPE, MODEL_TYPE, ServingStack
from noria.aws.stacks import NotDeleted, Stack, Stacks
from noria.aws.storage import Storage
from noria.card import sagemaker as cards
from noria.cli.leftovers import Scan, scan
from noria.cli.output import Refused
from noria.names import Names, Part

_ORDER = ("monitoring", "front-door", "serving", "training", "reactions", "roles", "network", "foundation")
"""Endings of stack names, users before what they use."""

_WINDOW_DAYS = 30


class Removed(BaseModel):
    """What was removed, what is kept and why, and what a scan then found of it in the account."""

    env: str
    stacks: list[str]
    packages: int
    objects: int
    kept: list[str]
    scan: Scan | None


class _Emptied(NamedTuple):
    packages: int
    objects: int
    kept: list[str]


@dataclass(frozen=True, kw_only=True)
class Teardown:
    env: str
    model: str | None = None
    part: Part | None = None
    stacks: Stacks = field(default_factory=Stacks)
    registry: Registry = field(default_factory=Registry)
    cards: Cards = field(default_factory=Cards)

    @property
    def names(self) -> Names:
        return Names(env=self.env)

    def found(self) -> list[Stack]:
        """The stacks of the environment, of one model in it or of one part, in the order of their removal.

        Raises `Refused` where there is none, or where one is protected.
        """
        found = [stack for stack in self.stacks.named(f"{self.names.prefix}-") if _part(stack)]
        if self.model:
            found = [stack for stack in found if stack.name == f"{self.names.model(self.model)}-{_part(stack)}"]
        if self.part:
            found = [stack for stack in found if _part(stack) == self.part]
        if not found:
            of = f"model {self.model!r} in " if self.model else ""
            raise Refused(f"No stack of {of}environment {self.env!r} is here: there is nothing to remove.")
        if protected := [stack.name for stack in found if stack.protected]:
            command = "aws cloudformation update-termination-protection --no-enable-termination-protection"
            lines = "\n".join(f"  {command} --stack-name {name}" for name in protected)
            raise Refused(f"Protected from deletion, which only a person takes off:\n{lines}")
        return sorted(found, key=lambda stack: (_ORDER.index(_part(stack)), stack.name))

    def run(self, *, progress: Callable[[str], None]) -> Removed:
        """Remove all stacks, those of a kind together; raises `NotDeleted` when CloudFormation cannot.

        Then mend what it says and run it again.
        """
        packages = objects = 0
        kept: list[str] = []
        stacks = self.found()
        for _, of_kind in groupby(stacks, key=_part):
            retired = []
            for stack in of_kind:
                emptied = self._empty(stack, progress=progress)
                packages, objects, kept = packages + emptied.packages, objects + emptied.objects, kept + emptied.kept
                retired.append((stack, self._retired(stack)))
                progress(f"deleting stack {stack.name}")
                self.stacks.begin_deletion(stack)
            problems = []
            for stack, names in retired:
                try:
                    self.stacks.wait_until_deleted(stack)
                except NotDeleted as problem:
                    problems.append(str(problem))
                    continue
                self._delete_retired(stack, names)
                gone = {name for _, name in names}
                kept += [
                    f"{what}: kept, because {stack.name} says so"
                    for what in self.stacks.kept(stack)
                    if what.replace("/", " ").split()[-1] not in gone
                ]
            if problems:
                raise NotDeleted("\n".join(problems))
        if self.model and not self.part:
            kept.append(f"data under {self.model}/ in the data bucket, and its ledger: they belong to the environment")
        if not self.part:
            of = self.names.model(self.model) if self.model else self.names.prefix
            kept.append(
                f"SageMaker's lineage of {of}: a record, as the ledger is, which costs nothing; the names of its "
                "actions begin so (aws sagemaker list-actions)"
            )
        kept.append(
            "log groups /aws/sagemaker/*Jobs: SageMaker made them and shares them among all of the account's jobs"
        )
        progress("looking for what is left")
        return Removed(
            env=self.env,
            stacks=[stack.name for stack in stacks],
            packages=packages,
            objects=objects,
            kept=kept,
            scan=self.scan(),
        )

    def scan(self) -> Scan | None:
        """None where one part of a model is meant, since the rest of it stays."""
        if self.part:
            return None
        stacks = self.stacks.named(f"{self.names.prefix}-")
        others = {
            stack.name.removeprefix(f"{self.names.prefix}-").removesuffix("-training")
            for stack in stacks
            if stack.name.endswith("-training")
        } - {self.model}
        region = self.stacks.client.meta.region_name
        return scan(Leftovers(env=self.env, model=self.model, others=others), region=region)

    def _empty(self, stack: Stack, *, progress: Callable[[str], None]) -> _Emptied:
        """Delete what CloudFormation does not, or what would keep it from deleting the stack."""
        packages = objects = 0
        kept = []
        for resource in self.stacks.resources(stack):
            if resource.type == "AWS::SageMaker::ModelPackageGroup":
                progress(f"emptying model package group {resource.id}")
                packages += self._delete_packages(resource.id)
            elif resource.type == "AWS::S3::Bucket" and resource.deletion_policy == "Delete":
                progress(f"emptying bucket {resource.id}")
                objects += Storage(bucket=resource.id).delete_everything()
            elif resource.type == "AWS::KMS::Key" and resource.deletion_policy == "Delete":
                kept.append(f"AWS::KMS::Key {resource.id}: pending deletion for {_WINDOW_DAYS} days, without cost")
        if "FlagsApplication" in stack.outputs:
            progress(f"deleting flags of {stack.name}")
            FlagStore.of(stack.outputs).forget()
        return _Emptied(packages, objects, kept)

    def _retired(self, stack: Stack) -> list[tuple[str, str]]:
        """Endpoint configs and models of a serving stack, those included that it keeps when it replaces them."""
        if _part(stack) != "serving":
            return []
        made = ServingStack(name=stack.name).resources_made(before=datetime.now(UTC))
        return sorted((kind, name) for kind, name in made if kind in (CONFIG_TYPE, MODEL_TYPE))

    def _delete_retired(self, stack: Stack, retired: list[tuple[str, str]]) -> None:
        endpoint = Endpoint(name=stack.name.removesuffix("-serving"))
        for kind, name in retired:
            (endpoint.delete_config if kind == CONFIG_TYPE else endpoint.delete_model)(name)

    def _delete_packages(self, arn: str) -> int:
        """`arn` is the group's: CloudFormation's id of it."""
        group = arn.rpartition("/")[-1]
        packages = self.registry.packages(group)
        for package in packages:
            self.registry.delete(package.arn)
            self.cards.delete(cards.name(group, package.version))
        return len(packages)


def _part(stack: Stack) -> str:
    """What of `_ORDER` the stack is; empty for none of them."""
    return next((part for part in _ORDER if stack.name.endswith(f"-{part}")), "")
