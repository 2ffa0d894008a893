"""A CDK app with nothing but front doors and what they stand on: `python -m tests.integration.front_door.cloud_app`."""

import os
from pathlib import Path

from aws_cdk import App, Environment

from noria.spec import load_all
from stacks.foundation import Foundation
from stacks.front_door import FrontDoor
from stacks.settings import settings_for


def main() -> None:
    app = App()
    settings = settings_for("local")
    specs = load_all(Path(os.environ["NORIA_TEST_MODELS"]))
    place = Environment(account=os.environ["CDK_DEFAULT_ACCOUNT"], region=os.environ["CDK_DEFAULT_REGION"])
    foundation = Foundation(app, "Foundation", env=place, settings=settings, specs=specs)
    for spec in specs:
        if door := spec.serve.front_door:
            FrontDoor(
                app,
                f"{spec.model}-front-door",
                env=place,
                settings=settings,
                spec=spec,
                door=door,
                foundation=foundation,
            )
    app.synth()


if __name__ == "__main__":
    main()
