"""The end of an environment: nothing that costs money is left, and what is left is named."""

from local.demo.world import World
from tests.e2e.test_3_command import run


def test_a_model_can_be_removed_alone(world: World) -> None:
    assert world.sagemaker.list_endpoints()["Endpoints"]
    removed = run(world, "destroy", "--env", "local", "--model", "flight-delay", answers="flight-delay\n")
    assert removed.returncode == 0, removed.stderr
    assert world.endpoint not in [e["EndpointName"] for e in world.sagemaker.list_endpoints()["Endpoints"]]
    stacks = world.client("cloudformation").describe_stacks()["Stacks"]
    assert not [stack for stack in stacks if stack["StackName"].startswith("noria-local-flight-delay-")]
    assert [key for key in world.keys("flight-delay/datasets/") if key.endswith("manifest.json")]


def test_destroy_removes_every_stack_and_names_what_it_leaves(world: World) -> None:
    removed = run(world, "destroy", "--env", "local", answers="local\n")
    assert removed.returncode == 0, removed.stderr
    assert "pending deletion for 30 days" in removed.stdout
    assert "could not look for" not in removed.stdout
    assert "Leaving it there costs 0.00 USD a month" in removed.stdout or "found nothing of it" in removed.stdout
    stacks = world.client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks if stack["StackName"].startswith("noria-")] == []
    assert not world.sagemaker.list_endpoints()["Endpoints"]
    assert not world.sagemaker.list_models()["Models"]
    assert not world.sagemaker.list_endpoint_configs()["EndpointConfigs"]
    assert not [b for b in world.s3.list_buckets()["Buckets"] if b["Name"].startswith("noria-")]
    assert not [q for q in world.client("sqs").list_queues().get("QueueUrls", []) if "noria-local" in q]
    assert not world.client("lambda").list_functions()["Functions"]
    assert world.client("dynamodb").list_tables()["TableNames"] == []
