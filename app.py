"""The whole cloud: `npx cdk synth|deploy|diff|destroy -c env=local|dev|prod` (dev when left out).

`-c models=<directory>` takes the specs from elsewhere than `models/`; `-c tracking=<ARN or URL>` names the MLflow
server in which each training is a run, as `tracking` in stacks/settings.py does.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aws_cdk import App, Environment, Stack, Tags, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from cdk_nag import AwsSolutionsChecks, NIST80053R5Checks, PCIDSS321Checks

from noria import business
from noria.names import mixed_up
from noria.spec import SpecError, load_all
from noria.template import Assembly
from stacks import stores
from stacks.accounts import Promotion, hear, let_describe, let_follow
from stacks.constructs.permissions import bound
from stacks.controls import explain
from stacks.foundation import Foundation
from stacks.front_door import FrontDoor
from stacks.monitoring import Monitoring
from stacks.network import placed
from stacks.reactions import Reactions
from stacks.roles import Roles
from stacks.serving import Serving
from stacks.settings import settings_for
from stacks.trail import Trail
from stacks.training import Training

MODELS = Path(__file__).parent / "models"

TRACELESS = {"aws:cdk:disable-creation-stack-traces": True}
"""A trace of where a construct was made names a folder that is new at each synth. cdk.json must not say so."""


def build(app: App, *, env: str, models: Path = MODELS) -> None:
    """Every stack of `env`: two of its own, and three for each spec in `models`, four with a front door."""
    settings = settings_for(env)
    if tracking := app.node.try_get_context("tracking"):
        settings = replace(settings, tracking=tracking)
    specs = load_all(models)
    if wrong := [problem for spec in specs for problem in (*business.problems(spec), *settings.problems(spec))]:
        raise SpecError("\n".join(wrong))
    place = Environment(account=os.environ.get("CDK_DEFAULT_ACCOUNT"), region=os.environ.get("CDK_DEFAULT_REGION"))

    foundation = Foundation(app, "Foundation", env=place, settings=settings, specs=specs)
    if settings.trail:
        Trail(foundation, "Trail", settings=settings)
    hear(foundation, settings)
    let_follow(foundation, settings.promotes_to)
    placement = placed(app, env=place, settings=settings, foundation=foundation)
    reactions = Reactions(
        app,
        "Reactions",
        env=place,
        settings=settings,
        foundation=foundation,
        specs=specs,
        placement=placement,
    )
    Roles(app, "Roles", env=place, settings=settings, foundation=foundation)
    if settings.promotes_to:
        Promotion(reactions, "Promotion", settings=settings)
    alarms: dict[str, Sequence[str]] = {}
    for spec in specs:
        training = Training(
            app,
            f"{spec.model}-training",
            env=place,
            settings=settings,
            spec=spec,
            foundation=foundation,
            reactions=reactions,
            placement=placement,
        )
        serving = Serving(
            app,
            f"{spec.model}-serving",
            env=place,
            settings=settings,
            spec=spec,
            foundation=foundation,
            training=training,
            placement=placement,
        )
        if settings.promotes_to:
            let_describe(training, settings.names.model(spec.model), settings.promotes_to)
        serving.add_stack_dependency(reactions)  # what the endpoint's log is sent to
        stacks: list[Stack] = [training, serving]
        front_door = None
        if door := spec.serve.front_door:
            front_door = FrontDoor(
                app,
                f"{spec.model}-front-door",
                env=place,
                settings=settings,
                spec=spec,
                door=door,
                foundation=foundation,
                placement=placement,
            )
            stacks.append(front_door)
        monitoring = Monitoring(
            app,
            f"{spec.model}-monitoring",
            env=place,
            settings=settings,
            spec=spec,
            foundation=foundation,
            reactions=reactions,
            front_door=front_door,
        )
        if front_door:
            monitoring.add_stack_dependency(front_door)  # its alarms are named there
        stacks.append(monitoring)
        for stack in stacks:
            Tags.of(stack).add("noria:model", spec.model)
            Tags.of(stack).add("noria:team", spec.owner.team)
        alarms[spec.model] = [
            str(alarm.alarm_name)
            for stack in stacks
            for alarm in stack.node.find_all()
            if isinstance(alarm, cloudwatch.CfnAlarm | cloudwatch.CfnCompositeAlarm)
        ]
    if mixed := list(mixed_up(alarms, settings.names)):
        raise SpecError("\n".join(mixed))

    Tags.of(app).add("noria:env", settings.env)
    bound(app, settings.permissions_boundary)
    explain(app)
    Validations.of(app).add_plugins(
        *(
            checks(app, write_suppressions_to_cloud_formation=True)
            for checks in (AwsSolutionsChecks, NIST80053R5Checks, PCIDSS321Checks)
        )
    )


def main() -> None:
    app = App(context=TRACELESS)
    try:
        build(
            app,
            env=app.node.try_get_context("env") or "dev",
            models=Path(app.node.try_get_context("models") or MODELS),
        )
    except (SpecError, ValueError) as problem:
        sys.exit(str(problem))
    # A store that would be replaced stops whatever asked for the synth: cdk deploy, too.
    if lost := stores.problems(Assembly.read(Path(app.synth().directory))):
        sys.exit("\n".join(lost))


if __name__ == "__main__":
    main()
