"""What is measured of a role: granted and never used, used and never granted, and what has its reason."""

from typing import Any

from local.privileges import Deployment, Privileges, Reason, measure


def template(stack: str, *actions: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    role = {"Type": "AWS::IAM::Role", "Metadata": {"aws:cdk:path": f"{stack}/DeployerRole/Resource"}}
    policy = {"Roles": [{"Ref": "Role"}], "PolicyDocument": {"Statement": [statement]}}
    return {"Resources": {"Role": role, "Policy": {"Type": "AWS::IAM::Policy", "Properties": policy}}}


DEPLOYED = Deployment(
    templates={
        "noria-local-a-training": template("a-training", "s3:GetObject", "s3:PutObject"),
        "noria-local-b-training": template("b-training", "s3:GetObject", "sns:Publish"),
        "noria-local-reactions": template("Reactions", "sqs:SendMessage"),
    },
    names={
        ("noria-local-a-training", "Role"): "a-role",
        ("noria-local-b-training", "Role"): "b-role",
        ("noria-local-reactions", "Role"): "c-role",
    },
)


def test_roles_of_one_place_in_several_models_are_one_and_others_are_not() -> None:
    reactions, training = measure(DEPLOYED, {"b-role": frozenset({"s3:GetObject"}), "stranger": frozenset({"iam:X"})})
    assert (reactions.place, training.place) == ("Reactions/DeployerRole", "training/DeployerRole")
    assert training.granted == {"s3:GetObject", "s3:PutObject", "sns:Publish"}
    assert training.unused == {"s3:PutObject", "sns:Publish"}
    assert reactions.unused == {"sqs:SendMessage"}


def test_what_was_used_and_is_not_granted_is_told() -> None:
    reactions, _ = measure(DEPLOYED, {"c-role": frozenset({"sqs:SendMessage", "s3:GetObject"})})
    assert reactions.ungranted == {"s3:GetObject"}
    assert not reactions.unused


def test_a_reason_is_for_the_actions_and_roles_that_it_names() -> None:
    role = Privileges("training/DeployerRole", frozenset({"a:A", "b:B", "c:C"}), frozenset({"c:C"}))
    explained = [
        Reason(role="training/", actions=("a:A",), because="For one."),
        Reason(role="Reactions/", actions=("b:B",), because="For another."),
    ]
    assert role.unexplained(explained) == {"b:B"}
