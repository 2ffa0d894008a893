"""The `noria` command: what is live and why, approve and reject, the ledger, the model specs.

It speaks to whatever cloud the environment names, AWS or the local one (`source .noria/local.env`).
"""

import sys

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from noria.aws.retries import patiently
from noria.aws.stacks import NotDeleted
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.spec import SpecError


def main() -> None:
    """Run the command; what went wrong is one message on standard error, never a traceback."""
    patiently()
    try:
        app()
    except (Refused, SpecError, NotDeleted) as error:
        sys.stderr.write(f"{error}\n")
    except NoCredentialsError:
        sys.stderr.write("No AWS credentials: configure them, or `source .noria/local.env` for the local cloud.\n")
    except ClientError as error:
        problem = error.response.get("Error", {})
        sys.stderr.write(
            f"AWS refused {error.operation_name}: {problem.get('Code')}: {problem.get('Message')}\n"
            "Check that --env names a deployed environment and that your role may do this.\n"
        )
    except BotoCoreError as error:
        sys.stderr.write(f"AWS could not be reached: {error}\n")
    else:
        return
    sys.exit(1)
