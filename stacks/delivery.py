"""Whom a forge's pipelines are in an account: two roles without a key, made once by an administrator.

    npx cdk deploy --app ".venv/bin/python -m stacks.delivery" -c env=dev -c forge=github -c repository=ORG/REPO

| role                  | who gets it                                 | what it may                               |
|-----------------------|---------------------------------------------|-------------------------------------------|
| `noria-<env>-deploy`  | a job of the forge's environment `<env>`,   | become the CDK's own roles, which deploy; |
|                       | once its reviewers agreed                   | look what is there (`noria preflight`)    |
| `noria-<env>-compare` | a job of a pull request                     | become the CDK's role that reads; look    |

A stack apart from all others, so that no pipeline changes what it may do itself. Where the account has the forge's
identity provider already: `-c provider=<its ARN>`.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import App, Duration, Environment, Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from noria.names import Names
from stacks.constructs.permissions import Grant, allow

QUALIFIER = "hnb659fds"
"""The CDK's own, in the names of the roles that `cdk bootstrap` makes."""


@dataclass(frozen=True, kw_only=True)
class Forge:
    """How a forge's tokens name it, whom they are for, and the jobs: `{repository}` and `{env}` are filled in."""

    issuer: str
    audience: str
    deploys: str
    compares: str


FORGES: Mapping[str, Forge] = {
    # Source: GitHub's documentation, "Configuring OpenID Connect in Amazon Web Services".
    "github": Forge(
        issuer="token.actions.githubusercontent.com",
        audience="sts.amazonaws.com",
        deploys="repo:{repository}:environment:{env}",
        compares="repo:{repository}:pull_request",
    ),
    # Source: GitLab's documentation, "Configure OpenID Connect in AWS". Its subject knows no environment: who may run a
    # job of main is who may deploy, and protected environments ask reviewers.
    "gitlab": Forge(
        issuer="gitlab.com",
        audience="https://gitlab.com",
        deploys="project_path:{repository}:ref_type:branch:ref:main",
        compares="project_path:{repository}:ref_type:branch:ref:*",
    ),
}


class Delivery(Stack):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        names: Names,
        forge: Forge,
        repository: str,
        provider: str | None = None,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=f"{names.prefix}-delivery",
            description=f"Noria ({names.env}): the roles of the pipelines of {repository}",
            env=env,
            termination_protection=True,
        )
        self._names = names
        self._forge = forge
        self._provider = provider or self._identity_provider()
        filled = {"repository": repository, "env": names.env}
        deploy = self._role("deploy", forge.deploys.format(**filled))
        compare = self._role("compare", forge.compares.format(**filled))
        self._become(deploy, "deploy-role", "file-publishing-role", "image-publishing-role", "lookup-role")
        self._become(compare, "lookup-role")
        for role in (deploy, compare):
            allow(role, *self._look())

    def _identity_provider(self) -> str:
        return iam.CfnOIDCProvider(
            self, "Provider", url=f"https://{self._forge.issuer}", client_id_list=[self._forge.audience]
        ).attr_arn

    def _role(self, name: str, subject: str) -> iam.Role:
        """For jobs with exactly that subject; a wildcard is a branch's name, of a forge that tells nothing else."""
        operator = "StringLike" if "*" in subject else "StringEquals"
        conditions = {"StringEquals": {f"{self._forge.issuer}:aud": self._forge.audience}}
        conditions.setdefault(operator, {})[f"{self._forge.issuer}:sub"] = subject
        return iam.Role(
            self,
            name.capitalize(),
            role_name=f"{self._names.prefix}-{name}",
            max_session_duration=Duration.hours(1),
            assumed_by=iam.WebIdentityPrincipal(self._provider, conditions=conditions),
        )

    def _become(self, role: iam.Role, *bootstrapped: str) -> None:
        allow(
            role,
            Grant(
                actions=["sts:AssumeRole"],
                resources=[
                    f"arn:aws:iam::{self.account}:role/cdk-{QUALIFIER}-{name}-{self.account}-{self.region}"
                    for name in bootstrapped
                ],
            ),
        )

    def _look(self) -> Sequence[Grant]:
        """What `noria preflight` reads."""
        ours = f"{self._names.prefix}-*"
        return (
            Grant(
                actions=["cloudformation:DescribeStacks", "cloudformation:ListStackResources"],
                resources=[self.format_arn(service="cloudformation", resource="stack", resource_name=f"{ours}/*")],
                because="Models come and go without a change of this stack.",
            ),
            Grant(
                actions=["sagemaker:DescribeEndpoint"],
                resources=[self.format_arn(service="sagemaker", resource="endpoint", resource_name=ours)],
                because="Models come and go without a change of this stack.",
            ),
            Grant(
                actions=["logs:DescribeLogGroups"],
                resources=["*"],
                because="CloudWatch Logs doesn't narrow DescribeLogGroups to single groups.",
            ),
        )


def build(app: App) -> Delivery:
    """Raises ValueError with what is missing on the command line."""
    env, forge, repository = (app.node.try_get_context(name) for name in ("env", "forge", "repository"))
    if not env or forge not in FORGES or not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", repository or ""):
        raise ValueError(f"say -c env=ENV -c forge={'|'.join(FORGES)} -c repository=ORG/REPO")
    delivery = Delivery(
        app,
        "Delivery",
        env=Environment(account=os.environ.get("CDK_DEFAULT_ACCOUNT"), region=os.environ.get("CDK_DEFAULT_REGION")),
        names=Names(env=env),
        forge=FORGES[forge],
        repository=repository,
        provider=app.node.try_get_context("provider"),
    )
    Tags.of(app).add("noria:env", env)
    return delivery


def main() -> None:
    app = App()
    try:
        build(app)
    except ValueError as problem:
        sys.exit(str(problem))
    app.synth()


if __name__ == "__main__":
    main()
