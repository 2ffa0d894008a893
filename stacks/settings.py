"""What differs between environments, in one place; everything else is the same template.

| environment | for                                   | data survives its stack | functions run              |
|-------------|---------------------------------------|-------------------------|----------------------------|
| `local`     | the local cloud on this machine       | no                      | this machine's interpreter |
| `dev`       | a team's account, made and unmade     | no                      | Python 3.13 on arm64       |
| `staging`   | what is to be live, before it is      | no                      | Python 3.13 on arm64       |
| `prod`      | the account that people depend on     | yes                     | Python 3.13 on arm64       |
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from noria.names import Names
from noria.serve import Mode
from noria.spec import ModelSpec
from noria.units import format_duration

EnvironmentName = Literal["local", "dev", "staging", "prod"]
Target = Literal["aws", "local"]


@dataclass(frozen=True, kw_only=True)
class OwnVpc:
    """A network that Noria makes (stacks/network.py): `cidr` is cut into a subnet for each of so many `zones`.

    With `organisation` (`o-…`) its endpoints serve all accounts of the organisation, else this environment's alone.
    """

    cidr: str = "10.60.0.0/20"
    zones: int = 2
    organisation: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExistingVpc:
    """A network that is there already: ids of subnets in at least two zones, and of security groups.

    It must lead to the services of stacks/network.py; who may reach what in it is for those to say who keep it.
    """

    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The environment whose approved versions go live here too: its name, its account, and its key's ARN."""

    env: str
    account: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Follower:
    """An environment that takes over the versions that are approved here: its name and its account."""

    env: str
    account: str


TRACKING_SERVER = re.compile(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:mlflow-tracking-server/[\w-]+|http://127\.0\.0\.1:\d+"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One environment. Days are whole days; the budget is in US dollars a month.

    `network`: functions, jobs and models run in it; without one they are in AWS's own network. `trail`: CloudTrail
    keeps who read or wrote each object and each entry of the ledger, for `log_days` (stacks/trail.py).
    `tracking`: the MLflow server in which each training is a run (docs/decisions/0025-experiment-tracking.md): the ARN
    of a SageMaker tracking server, which costs by the hour, or a URL on this machine; none by default.
    `permissions_boundary`: the name of a managed policy of the account, put on every role of every stack.
    `registry` and `promotes_to` are the two ends of a promotion between accounts (stacks/accounts.py).
    """

    env: EnvironmentName
    target: Target = "aws"
    keeps_data: bool = False
    termination_protection: bool = False
    log_days: Literal[7, 30, 365]
    archive_days: int
    captured_days: int
    noncurrent_days: int
    ledger_lock_days: int = 1
    """For so long nobody can delete the copy of a ledger's entry, counted from its writing. Where data survives its
    stack that binds everybody, AWS included; it can be made longer, not shorter: docs/decisions/0021-locked-copies.md.
    """
    model_dashboards: bool = True
    """CloudWatch gives three dashboards of an account away, and takes 3 USD a month for each more: this environment's,
    and one for each model, which `False` leaves out.
    """
    monthly_budget: int | None = None
    network: OwnVpc | ExistingVpc | None = None
    permissions_boundary: str | None = None
    trail: bool = False
    registry: Registry | None = None
    tracking: str | None = None
    promotes_to: tuple[Follower, ...] = ()

    def __post_init__(self) -> None:
        if self.tracking is None:
            return
        if not TRACKING_SERVER.fullmatch(self.tracking):
            raise ValueError(
                f"tracking = {self.tracking!r}: name a SageMaker tracking server by its ARN "
                "(arn:aws:sagemaker:<region>:<account>:mlflow-tracking-server/<name>), or http://127.0.0.1:<port>"
            )
        if self.network:
            raise ValueError("tracking: no endpoint of the network leads to SageMaker's MLflow: choose one of the two")

    @property
    def names(self) -> Names:
        return Names(env=self.env)

    @property
    def deployer_path(self) -> str:
        """IAM path of the roles that serving stacks are updated with: what reactions may pass is what is under it."""
        return f"/noria/{self.env}/deployer/"

    def problems(self, spec: ModelSpec) -> Iterator[str]:
        """What a model asks for that this environment does not give."""
        if self.network and spec.serve.mode is Mode.SERVERLESS:
            yield (
                f"{spec.model}: serve.mode = 'serverless': SageMaker puts no serverless endpoint into a network, and "
                f"{self.env} has one: choose another mode, or take `network` out of stacks/settings.py"
            )
        labels = spec.monitor.labels
        if labels.reach > timedelta(days=self.captured_days):
            yield (
                f"{spec.model}: monitor.labels.within = {format_duration(labels.within)}: quality looks back twice as "
                f"far, and {self.env} keeps captured requests for {self.captured_days}d: lower it, or raise "
                "captured_days in stacks/settings.py"
            )


ENVIRONMENTS: dict[str, Settings] = {
    settings.env: settings
    for settings in (
        Settings(
            env="local",
            target="local",
            log_days=7,
            archive_days=7,
            captured_days=90,
            noncurrent_days=7,
        ),
        Settings(
            env="dev",
            log_days=30,
            archive_days=30,
            captured_days=90,
            noncurrent_days=30,
            monthly_budget=200,
        ),
        Settings(
            env="staging",
            log_days=30,
            archive_days=30,
            captured_days=90,
            noncurrent_days=30,
            monthly_budget=500,
        ),
        Settings(
            env="prod",
            keeps_data=True,
            termination_protection=True,
            log_days=365,
            archive_days=365,
            captured_days=365,
            noncurrent_days=365,
            ledger_lock_days=365,
            monthly_budget=2000,
        ),
    )
}


def settings_for(env: str) -> Settings:
    """The settings of `env`; raises ValueError with the names that exist."""
    if env not in ENVIRONMENTS:
        raise ValueError(f"there is no environment {env!r}: use -c env={'|'.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[env]
