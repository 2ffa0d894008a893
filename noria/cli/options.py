"""Options that many commands have, so that they are said the same way in each."""

from typing import Annotated

import typer

Env = Annotated[str, typer.Option("--env", envvar="NORIA_ENV", help="environment: local, dev, staging or prod")]
AsJson = Annotated[bool, typer.Option("--json", help="answer as JSON")]

DEFAULT_ENV = "dev"
