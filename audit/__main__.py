"""`python -m audit templates` scans what would be deployed to `dev`, `… packages` asks what is known against packages.

checkov and parliament need no network. pip-audit and npm audit ask services for advisories; where one does not answer,
that is said, and no finding. Exit code 1 when anything was found.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".noria" / "audit" / "bin"
OUT = REPOSITORY / ".noria" / "audit-out"
ACCEPTED = Path(__file__).with_name("accepted.yaml")
UNREACHABLE = (
    *("Failed to resolve", "ConnectionError", "Max retries exceeded"),
    *("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "audit endpoint returned an error"),
)
ACCOUNT = "eu-west-1:123456789012"
ARNS = {
    "AWS::DynamoDB::Table": f"dynamodb:{ACCOUNT}:table/name",
    "AWS::Events::EventBus": f"events:{ACCOUNT}:event-bus/name",
    "AWS::IAM::Role": "iam::123456789012:role/name",
    "AWS::KMS::Key": f"kms:{ACCOUNT}:key/name",
    "AWS::Lambda::Function": f"lambda:{ACCOUNT}:function:name",
    "AWS::Logs::LogGroup": f"logs:{ACCOUNT}:log-group:name:*",
    "AWS::S3::Bucket": "s3:::name",
    "AWS::SNS::Topic": f"sns:{ACCOUNT}:name",
    "AWS::SQS::Queue": f"sqs:{ACCOUNT}:name",
}
"""What stands for a reference to a resource, so that parliament can compare it with what an action takes."""


def main() -> int:
    match sys.argv[1:]:
        case ["templates"]:
            synthesise()
            accepted = yaml.safe_load(ACCEPTED.read_text(encoding="utf-8"))
            found = [*checkov(accepted["checkov"]), *parliament(accepted["parliament"])]
        case ["packages"]:
            found = list(advisories())
        case _:
            sys.exit(__doc__)
    say(*found, f"{len(found)} findings" if found else "Nothing found.")
    return 1 if found else 0


def synthesise() -> None:
    place = {"CDK_DEFAULT_ACCOUNT": "123456789012", "CDK_DEFAULT_REGION": "eu-west-1", "CDK_OUTDIR": str(OUT)}
    context = json.loads((REPOSITORY / "cdk.json").read_text(encoding="utf-8"))["context"] | {"env": "dev"}
    environment = os.environ | place | {"CDK_CONTEXT_JSON": json.dumps(context)}
    subprocess.run([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, check=True)


def checkov(accepted: Mapping[str, str]) -> Iterator[str]:
    """Each failed check, those apart that are accepted with a reason."""
    command: list[str | Path] = [
        TOOLS / "checkov",
        "--framework",
        "cloudformation",
        "--compact",
        "--quiet",
        "--output",
        "json",
    ]
    command += ["--skip-download", "--skip-check", ",".join(accepted)]
    command += [argument for template in templates() for argument in ("--file", template)]
    ran = subprocess.run(command, cwd=OUT, capture_output=True, text=True, check=False)
    answer = json.loads(ran.stdout)
    if "results" not in answer:
        raise RuntimeError(f"checkov looked at nothing:\n{ran.stdout[-500:]}{ran.stderr[-500:]}")
    say(f"checkov: {answer['summary']['passed']} checks passed, {len(accepted)} accepted")
    for check in answer["results"]["failed_checks"]:
        yield f"checkov {check['check_id']} {check['file_path']} {check['resource']}: {check['check_name']}"


def parliament(accepted: Mapping[str, str]) -> Iterator[str]:
    """Each finding in a policy of a template; `accepted` are kinds of findings, or kinds with one action."""
    policies = dict(documents())
    ran = subprocess.run(
        [TOOLS / "python", Path(__file__).with_name("policies.py")],
        input=json.dumps(policies),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"parliament failed:\n{ran.stderr[-1000:]}")
    say(f"parliament: {len(policies)} policies, {len(accepted)} findings accepted")
    for name, issue, detail in json.loads(ran.stdout):
        actions = {each["action"] for each in detail if isinstance(each, dict)} if isinstance(detail, list) else set()
        if issue not in accepted and not (actions and all(f"{issue} {action}" in accepted for action in actions)):
            yield f"parliament {issue} {name}: {detail}"


def documents() -> Iterator[tuple[str, Any]]:
    """Every policy, by its template and logical id, with its references replaced by ARNs."""
    read = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in templates()}
    exported = {
        output["Export"]["Name"]: (template, output["Value"])
        for template in read.values()
        for output in template.get("Outputs", {}).values()
        if "Export" in output
    }

    def plain(value: Any, template: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - a case for each form
        match value:
            case str():
                return re.sub(r"\$\{[^}]*\}", "variable", value)
            case list():
                return [plain(each, template) for each in value]
            case {"Fn::Join": [str(delimiter), list(parts)]}:
                return delimiter.join(plain(part, template) for part in parts)
            case {"Fn::ImportValue": name}:
                where, what = exported[name]
                return plain(what, where)
            case {"Fn::GetAtt": [id_, "StreamArn"]}:
                return f"arn:aws:{ARNS[template['Resources'][id_]['Type']]}/stream/name"
            case {"Ref": id_} | {"Fn::GetAtt": [id_, _]}:
                known = ARNS.get(template["Resources"][id_]["Type"]) if id_ in template["Resources"] else None
                return f"arn:aws:{known}" if known else "aws" if id_ == "AWS::Partition" else "name"
        return {name: plain(each, template) for name, each in value.items()} if isinstance(value, dict) else value

    for name, template in read.items():
        for id_, resource in template["Resources"].items():
            if resource["Type"] in {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}:
                yield f"{name}/{id_}", plain(resource["Properties"]["PolicyDocument"], template)


def advisories() -> Iterator[str]:
    """What is known against locked packages, by those who keep such lists."""
    for lock in ("requirements.lock", "local/container/requirements.lock", "pipelines/serving/requirements.lock"):
        command = [TOOLS / "pip-audit", "--disable-pip", "--require-hashes", "--requirement", lock]
        yield from asked([str(part) for part in command])
    yield from asked(["npm", "audit", "--package-lock-only"])


def asked(command: list[str]) -> Iterator[str]:
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    name = Path(command[0]).name
    said = f"{ran.stdout}\n{ran.stderr}"
    if ran.returncode == 0:
        say(f"{name} {command[-1]}: nothing is known against it")
    elif any(sign in said for sign in UNREACHABLE):
        say(f"{name} {command[-1]}: SKIPPED, its service does not answer from here")
    else:
        yield f"{name} {command[-1]}:\n{said.strip()[-2000:]}"


def templates() -> list[Path]:
    return sorted(OUT.glob("*.template.json"))


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
