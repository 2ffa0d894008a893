"""AWS's own scikit-learn image, so that a deployment needs no Docker: scikit-learn 1.9, Python 3.12, pandas 2.2.

Source of the accounts: `sklearn.json` among the image URIs of the SageMaker Python SDK 3.27 (version 1.9-0, CPU).
"""

from aws_cdk import Aws, CfnMapping, Stack

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


class ScikitLearnImage:
    """The image in the stack's region; synth fails where AWS does not publish it."""

    def __init__(self, stack: Stack) -> None:
        registries = {region: {"account": account} for region, account in REGISTRIES.items()}
        mapping = CfnMapping(stack, "Registries", mapping=registries, lazy=True)
        self._account = mapping.find_in_map(stack.region, "account")
        self._stack = stack

    @property
    def uri(self) -> str:
        return f"{self._account}.dkr.ecr.{self._stack.region}.{Aws.URL_SUFFIX}/{REPOSITORY}:{TAG}"

    @property
    def repository_arn(self) -> str:
        return self._stack.format_arn(
            service="ecr", account=self._account, resource="repository", resource_name=REPOSITORY
        )
