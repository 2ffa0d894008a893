"""The roles of a forge's pipelines: which jobs get them, and what with them."""

import fnmatch
import json
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from stacks.delivery import FORGES, build
from tests.infrastructure.assembly import ACCOUNT, CONTEXT, REGION, Assembly, Template

NAMES = {"env": "prod", "repository": "acme/noria"}


@pytest.fixture(scope="module", params=["github", "gitlab"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Template:
    out = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_DEFAULT_ACCOUNT", ACCOUNT)
        patch.setenv("CDK_DEFAULT_REGION", REGION)
        app = aws_cdk.App(context=CONTEXT | NAMES | {"forge": request.param}, outdir=str(out))
        build(app)
        aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
        app.synth()
    assembly = Assembly(out)
    assert assembly.findings == []
    return assembly["noria-prod-delivery"]


GETS: dict[str, dict[str, tuple[str, ...]]] = {
    "token.actions.githubusercontent.com": {
        "deploy": ("repo:acme/noria:environment:prod",),
        "compare": ("repo:acme/noria:pull_request",),
        "": (
            "repo:acme/noria:ref:refs/heads/main",
            "repo:acme/noria:environment:dev",
            "repo:acme/noria-fork:pull_request",
            "repo:evil/noria:environment:prod",
        ),
    },
    "gitlab.com": {
        "deploy": ("project_path:acme/noria:ref_type:branch:ref:main",),
        "compare": (
            "project_path:acme/noria:ref_type:branch:ref:main",
            "project_path:acme/noria:ref_type:branch:ref:feature/x",
        ),
        "": (
            "project_path:acme/noria:ref_type:tag:ref:v1",
            "project_path:evil/noria:ref_type:branch:ref:main",
        ),
    },
}


def test_a_role_goes_to_the_jobs_that_it_is_for_and_to_no_others(template: Template) -> None:
    (provider,) = template.of("AWS::IAM::OIDCProvider")
    issuer = str(provider.properties["Url"]).removeprefix("https://")
    every = {subject for subjects in GETS[issuer].values() for subject in subjects}
    for name in ("deploy", "compare"):
        role = template.one("AWS::IAM::Role", RoleName=f"noria-prod-{name}")
        (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert template.target(trust["Principal"]["Federated"]) == provider
        assert trust["Condition"]["StringEquals"][f"{issuer}:aud"] in provider.properties["ClientIdList"]
        assert {s for s in every if _gets(trust["Condition"], issuer, s)} == set(GETS[issuer][name])
        assert role.properties["MaxSessionDuration"] == 3600


def test_the_one_that_deploys_becomes_the_cdks_roles_and_the_other_the_one_that_reads(template: Template) -> None:
    cdk = f"arn:aws:iam::{ACCOUNT}:role/cdk-hnb659fds-{{}}-{ACCOUNT}-{REGION}"
    deploys = ("deploy-role", "file-publishing-role", "image-publishing-role", "lookup-role")
    assert _becomes(template, "deploy") == {cdk.format(role) for role in deploys}
    assert _becomes(template, "compare") == {cdk.format("lookup-role")}


def test_neither_may_do_anything_else_but_look(template: Template) -> None:
    for name in ("deploy", "compare"):
        role = template.one("AWS::IAM::Role", RoleName=f"noria-prod-{name}")
        assert role.find("ManagedPolicyArns") is None
        done = {action for statement in template.allowed(role) for action in statement["Action"]}
        assert {a for a in done if a.partition(":")[2].startswith(("Describe", "List"))} == done - {"sts:AssumeRole"}


def test_nobody_has_a_key(template: Template) -> None:
    assert not [r for r in template.resources if r.type in {"AWS::IAM::User", "AWS::IAM::AccessKey"}]


def test_an_accounts_own_provider_is_taken(tmp_path: Path) -> None:
    provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{FORGES['github'].issuer}"
    app = aws_cdk.App(context=CONTEXT | NAMES | {"forge": "github", "provider": provider}, outdir=str(tmp_path))
    build(app)
    app.synth()
    made = Assembly(tmp_path)["noria-prod-delivery"]
    assert made.of("AWS::IAM::OIDCProvider") == []
    assert json.dumps(made.body).count(provider) == 2


@pytest.mark.parametrize(
    "wrong", [{"forge": "svn"}, {"repository": "noria"}, {"repository": "acme/*"}, {"env": None}], ids=str
)
def test_what_is_missing_is_said(wrong: dict[str, Any]) -> None:
    said = {k: v for k, v in (CONTEXT | NAMES | {"forge": "github"} | wrong).items() if v is not None}
    with pytest.raises(ValueError, match=r"-c env=ENV -c forge=github\|gitlab -c repository=ORG/REPO"):
        build(aws_cdk.App(context=said))


def _gets(condition: dict[str, Any], issuer: str, subject: str) -> bool:
    exact = condition["StringEquals"].get(f"{issuer}:sub")
    like = condition.get("StringLike", {}).get(f"{issuer}:sub")
    assert (exact is None) != (like is None)
    return subject == exact if exact else fnmatch.fnmatchcase(subject, like)


def _becomes(template: Template, name: str) -> set[str]:
    role = template.one("AWS::IAM::Role", RoleName=f"noria-prod-{name}")
    return {r for s in template.allowed(role) if "sts:AssumeRole" in s["Action"] for r in s["Resource"]}
