"""Names that CloudFormation makes up."""

from aws_cdk import Stack


def logical_id(name: str, part: str) -> str:
    """A logical id that begins with a name: `noria-dev-flight-delay`, `Model` is `NoriaDevFlightDelayModel`.

    CloudFormation begins a made-up name with the logical id or with the stack's name, and doesn't document with which;
    so that policies can tell a model's resources from another's, both begin with the same words.
    """
    return "".join(word.capitalize() for word in name.split("-")) + part


def generated_arns(stack: Stack, name: str) -> list[str]:
    """ARNs of models and endpoint configurations that belong to `name`; SageMaker's ARNs may be in lower case."""
    begins = logical_id(name, "")
    return [
        stack.format_arn(service="sagemaker", resource=kind, resource_name=f"{start}*")
        for kind in ("model", "endpoint-config")
        for start in (f"{name}-", begins, begins.lower())
    ]
