"""Processing jobs: /opt/ml/processing in and out.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

import json
import threading
from typing import Any

from local.sagemaker.api import Document, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.container import Container
from local.sagemaker.jobs import Job, Jobs
from local.sagemaker.programs import Program
from local.sagemaker.storage import download, upload
from local.sagemaker.tags import Tags


class Processing:
    """The operations on processing jobs."""

    def __init__(self, cloud: Cloud, tags: Tags, slots: threading.Semaphore) -> None:
        self.jobs = Jobs(_Processing(cloud), cloud, tags, slots)
        self.create_processing_job = self.jobs.create
        self.describe_processing_job = self.jobs.describe
        self.list_processing_jobs = self.jobs.list_
        self.stop_processing_job = self.jobs.stop


class _Processing(Program):
    noun = "Processing"

    def refuse(self, request: Document) -> None:
        if not request["AppSpecification"].get("ContainerEntrypoint"):
            raise invalid("The local SageMaker has no image to take an entry point from: give ContainerEntrypoint.")
        for source in request.get("ProcessingInputs", []):
            if "S3Input" not in source:
                raise invalid(f"The local SageMaker reads S3Input only: {source['InputName']}.")
            if source["S3Input"].get("S3CompressionType", "None") != "None":
                raise invalid(f"The local SageMaker does not decompress inputs: {source['InputName']}.")
        for output in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            if output.get("S3Output", {}).get("S3UploadMode") != "EndOfJob":
                raise invalid(
                    f"The local SageMaker writes S3Output at the end of the job only: {output['OutputName']}."
                )

    def initial(self, request: Document) -> Document:
        return {}

    def prepare(self, job: Job, container: Container, s3: Any) -> None:
        for source in job.description.get("ProcessingInputs", []):
            data = source["S3Input"]
            download(s3, data["S3Uri"], container.path(data["LocalPath"]), data_type=data["S3DataType"])
        for output in _outputs(job):
            container.path(output["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        request = {key: value for key, value in job.description.items() if not key.endswith("Time")}
        files = {
            "config/processingjobconfig.json": request,
            "config/resourceconfig.json": {"current_host": "algo-1", "hosts": ["algo-1"]},
        }
        for name, content in files.items():
            file = container.path(f"/opt/ml/{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content, default=str))
        container.path("/opt/ml/output").mkdir(exist_ok=True)

    def command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        application = job.description["AppSpecification"]
        argv = [*application["ContainerEntrypoint"], *application.get("ContainerArguments", [])]
        return argv, job.description.get("Environment", {})

    def collect(self, job: Job, container: Container, s3: Any) -> None:
        key = job.description.get("ProcessingOutputConfig", {}).get("KmsKeyId")
        for output in _outputs(job):
            upload(s3, container.path(output["S3Output"]["LocalPath"]), output["S3Output"]["S3Uri"], kms_key=key)

    def phase(self, job: Job, name: str, message: str) -> None:
        if name == "MaxRuntimeExceeded":
            job.description["ExitMessage"] = message


def _outputs(job: Job) -> list[Document]:
    outputs: list[Document] = job.description.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return outputs
