"""The workflows: no key, no more permissions than a step needs, no code of strangers, and nobody skips a reviewer."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = REPOSITORY / ".github" / "workflows"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


@pytest.fixture(params=["ci.yml", "deploy.yml"])
def text(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return (WORKFLOWS / name).read_text(encoding="utf-8")


@pytest.fixture
def deploy() -> dict[Any, Any]:
    return _parsed((WORKFLOWS / "deploy.yml").read_text(encoding="utf-8"))


def test_there_is_no_other_workflow() -> None:
    assert {path.name for path in WORKFLOWS.iterdir()} == {"ci.yml", "deploy.yml"}


def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is(text: str) -> None:
    used = [line.strip().removeprefix("- ") for line in text.splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert used
    assert [line for line in used if not PINNED.match(line)] == []


def test_an_action_is_the_same_commit_wherever_it_is_used() -> None:
    everywhere = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS.iterdir())
    commits: dict[str, set[str]] = {}
    for action, commit in re.findall(r"uses: (\S+)@([0-9a-f]{40})", everywhere):
        commits.setdefault(action, set()).add(commit)
    assert all(len(commit) == 1 for commit in commits.values())


def test_there_is_no_key_and_no_secret(text: str) -> None:
    assert not re.search(r"secrets\.|aws-access-key-id|aws-secret-access-key|AWS_SECRET", text)


def test_what_a_stranger_wrote_is_never_part_of_a_script(text: str) -> None:
    for _, step in _steps(_parsed(text)):
        assert not re.search(r"\$\{\{\s*github\.(event|head_ref|ref_name)", step.get("run", ""))
    assert "pull_request_target" not in text  # which would give the base's rights to a fork's code


def test_a_token_of_the_repository_is_left_in_no_checkout(text: str) -> None:
    for _, step in _steps(_parsed(text)):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_every_job_ends_and_runs_on_a_named_system(text: str) -> None:
    for job in _parsed(text)["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert job["runs-on"] == "ubuntu-24.04"


def test_a_pull_request_is_linted_and_tested_with_no_right_but_to_read() -> None:
    ci = _parsed((WORKFLOWS / "ci.yml").read_text(encoding="utf-8"))
    assert "pull_request" in ci[ON]
    assert ci["permissions"] == {"contents": "read"}
    (job,) = ci["jobs"].values()
    assert "permissions" not in job
    assert job["strategy"]["matrix"]["target"] == ["lint", "test"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in ("lint", "test", "setup", "diff", "deploy"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_job_has_the_rights_that_its_steps_need(deploy: dict[Any, Any]) -> None:
    assert deploy["permissions"] == {}
    to_deploy = {"contents": "read", "id-token": "write"}
    assert {name: job["permissions"] for name, job in deploy["jobs"].items()} == {
        "diff": to_deploy | {"pull-requests": "write"},
        **dict.fromkeys(ENVIRONMENTS, to_deploy),
    }


def test_a_pull_request_of_this_repository_is_told_what_would_change_and_changes_nothing(
    deploy: dict[Any, Any],
) -> None:
    job = deploy["jobs"]["diff"]
    assert "github.event_name == 'pull_request'" in job["if"]
    assert "head.repo.full_name == github.repository" in job["if"]
    assert "environment" not in job
    assert job["strategy"]["matrix"]["env"] == ENVIRONMENTS
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert any("make diff" in run for run in runs)
    assert any("gh pr comment" in run for run in runs)
    assert not any("make deploy" in run for run in runs)
    assert _role(job).endswith("-compare")


def test_a_pull_request_is_told_what_it_would_cost_beside_what_would_change(deploy: dict[Any, Any]) -> None:
    steps = deploy["jobs"]["diff"]["steps"]
    base = next(step for step in steps if step.get("with", {}).get("path") == "base")
    assert base["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    price = next(step["run"] for step in steps if step.get("name") == "price")
    assert "cd base && " in price
    assert "--output ../before.out" in price
    assert "noria cost --against before.out | tee cost.txt" in price
    say = next(step["run"] for step in steps if "gh pr comment" in step.get("run", ""))
    assert "cost.txt" in say
    held = sum(map(int, re.findall(r"--bytes=(\d+)", say)))
    assert held < 65_000  # of the 65,536 characters that a comment holds


def test_main_goes_from_environment_to_environment_each_with_its_own_role(deploy: dict[Any, Any]) -> None:
    assert deploy[ON]["push"] == {"branches": ["main"]}
    for before, env in zip([None, *ENVIRONMENTS], ENVIRONMENTS, strict=False):
        job = deploy["jobs"][env]
        assert job["if"] == "vars.NORIA_ACCOUNTS != '' && github.event_name == 'push'"
        assert job["environment"] == env  # whose reviewers are asked, and which the role's trust names
        assert job.get("needs") == before
        assert [step["run"] for step in job["steps"] if "run" in step] == ["make setup", 'make deploy ENV="$ENV"']
        assert _role(job) == (
            "arn:aws:iam::${{ fromJSON(vars.NORIA_ACCOUNTS)[github.job].account }}:role/noria-${{ github.job }}-deploy"
        )


def test_nothing_runs_where_no_accounts_are_named(deploy: dict[Any, Any]) -> None:
    assert [
        name for name, job in deploy["jobs"].items() if not job["if"].startswith("vars.NORIA_ACCOUNTS != '' && ")
    ] == []


def test_one_deployment_at_a_time_and_none_is_cut_off(deploy: dict[Any, Any]) -> None:
    assert deploy["concurrency"] == {"group": "deploy-${{ github.ref }}", "cancel-in-progress": False}


ENVIRONMENTS = ["dev", "staging", "prod"]

ON = True
"""How YAML 1.1 reads the word `on`."""


def _parsed(text: str) -> dict[Any, Any]:
    parsed: dict[Any, Any] = yaml.safe_load(text)
    return parsed


def _steps(workflow: dict[Any, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for name, job in workflow["jobs"].items() for step in job["steps"]]


def _role(job: dict[str, Any]) -> str:
    (role,) = (s["with"]["role-to-assume"] for s in job["steps"] if "configure-aws-credentials" in s.get("uses", ""))
    return str(role)
