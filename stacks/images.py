"""Which images a model's containers run.

| spec                     | prepares, trains, evaluates | serves                                              |
|--------------------------|-----------------------------|-----------------------------------------------------|
| (nothing)                | AWS's scikit-learn image    | Noria's model server, built from pipelines/serving/ |
| `serve: {server: aws}`   | AWS's scikit-learn image    | the same: a deployment then needs no Docker         |
| `image: …`               | the image                   | the image                                           |

Where a model turns out to have no ONNX form, its package names the image of the second column. AWS's image is for x86
alone: `noria.spec` refuses it on Graviton instances, and `noria.gates` a model for them that needs it.
AWS's image has scikit-learn 1.9, Python 3.12 and pandas 2.2. Source of its accounts: `sklearn.json` among the image
URIs of the SageMaker Python SDK 3.27 (version 1.9-0, CPU).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import Aws, CfnMapping, Stack
from aws_cdk import aws_ecr_assets as ecr_assets

from noria.spec import ModelSpec
from stacks.settings import Target

SERVER = Path(__file__).resolve().parent.parent / "pipelines" / "serving"
LOCAL_SERVER = "noria-serving:local"
"""Name and tag by which the local SageMaker knows the server that it starts without Docker."""

OWN = r"(?P<account>\d+)\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[a-z0-9._/-]+)[:@].+"

REPOSITORY = "sagemaker-scikit-learn"
TAG = "1.9-0-cpu-py3"

REGISTRIES = {
    "af-south-1": "510948584623",
    "ap-east-1": "651117190479",
    "ap-northeast-1": "354813040037",
    "ap-northeast-2": "366743142698",
    "ap-northeast-3": "867004704886",
    "ap-south-1": "720646828776",
    "ap-south-2": "628508329040",
    "ap-southeast-1": "121021644041",
    "ap-southeast-2": "783357654285",
    "ap-southeast-3": "951798379941",
    "ap-southeast-4": "106583098589",
    "ca-central-1": "341280168497",
    "ca-west-1": "190319476487",
    "eu-central-1": "492215442770",
    "eu-central-2": "680994064768",
    "eu-north-1": "662702820516",
    "eu-south-1": "978288397137",
    "eu-south-2": "104374241257",
    "eu-west-1": "141502667606",
    "eu-west-2": "764974769150",
    "eu-west-3": "659782779980",
    "il-central-1": "898809789911",
    "me-central-1": "272398656194",
    "me-south-1": "801668240914",
    "sa-east-1": "737474898029",
    "us-east-1": "683313688378",
    "us-east-2": "257758044811",
    "us-west-1": "746614075791",
    "us-west-2": "246618743249",
}


@dataclass(frozen=True)
class Image:
    """What SageMaker pulls, and the repository that a role must be allowed to pull it from."""

    uri: str
    repository_arn: str


@dataclass(frozen=True)
class Images:
    """Of one model: `jobs` prepares, trains and evaluates; `serving` answers requests."""

    jobs: Image
    serving: Image

    @property
    def repository_arns(self) -> list[str]:
        return list(dict.fromkeys([self.jobs.repository_arn, self.serving.repository_arn]))


def images_of(spec: ModelSpec, stack: Stack, target: Target) -> Images:
    """The images of a model; those that must be built are assets of `stack`."""
    if spec.image:
        own = _own(spec.image, stack)
        return Images(jobs=own, serving=own)
    aws = _scikit_learn(stack)
    if spec.server == "aws":
        return Images(jobs=aws, serving=aws)
    return Images(jobs=aws, serving=_local_server(stack) if target == "local" else _built_server(spec, stack))


def _own(uri: str, stack: Stack) -> Image:
    found = re.fullmatch(OWN, uri)
    if found is None:
        raise ValueError(f"{uri} is not the URI of an image in ECR")
    return Image(uri, _repository(stack, found["account"], found["repository"], region=found["region"]))


def _scikit_learn(stack: Stack) -> Image:
    """AWS's image in the stack's region; synth fails where AWS does not publish it."""
    registries = {region: {"account": account} for region, account in REGISTRIES.items()}
    mapping = CfnMapping(stack, "Registries", mapping=registries, lazy=True)
    account = mapping.find_in_map(stack.region, "account")
    return Image(_uri(stack, account, f"{REPOSITORY}:{TAG}"), _repository(stack, account, REPOSITORY))


def _built_server(spec: ModelSpec, stack: Stack) -> Image:
    """Built for the processor of the instances when the stack is deployed: synth needs no Docker."""
    asset = ecr_assets.DockerImageAsset(
        stack,
        "Server",
        directory=str(SERVER),
        platform=ecr_assets.Platform.LINUX_ARM64 if spec.serve.graviton else ecr_assets.Platform.LINUX_AMD64,
    )
    return Image(asset.image_uri, asset.repository.repository_arn)


def _local_server(stack: Stack) -> Image:
    name = LOCAL_SERVER.partition(":")[0]
    return Image(_uri(stack, stack.account, LOCAL_SERVER), _repository(stack, stack.account, name))


def _uri(stack: Stack, account: str, image: str) -> str:
    return f"{account}.dkr.ecr.{stack.region}.{Aws.URL_SUFFIX}/{image}"


def _repository(stack: Stack, account: str, name: str, *, region: str | None = None) -> str:
    return stack.format_arn(service="ecr", region=region, account=account, resource="repository", resource_name=name)
