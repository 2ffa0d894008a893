"""Runs in MLflow: SageMaker's managed server, named by its ARN (through the plugin sagemaker-mlflow), or any by URL."""

from dataclasses import dataclass
from enum import StrEnum

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from noria.tracking import EXECUTION, Run


class Tracked(StrEnum):
    TRACKED = "TrainingTracked"
    SAME = "TrainingKnown"


@dataclass(frozen=True, kw_only=True)
class Tracking:
    client: MlflowClient

    def write(self, run: Run, *, artifacts: str) -> Tracked:
        """Have a run say this. One that another delivery has begun is ended; an ended one stays as it is.

        `artifacts` is the S3 URI under which the files of the experiment's runs are.
        """
        experiment = self._experiment(run.experiment, artifacts)
        # An ARN has no quote. MLflow names what a filter compares with backticks where it has a dot.
        found = self.client.search_runs([experiment], f"tags.`{EXECUTION}` = '{run.tags[EXECUTION]}'", max_results=1)
        if found and found[0].info.status in {"FINISHED", "FAILED"}:
            return Tracked.SAME
        begun = found[0] if found else None
        if begun is None:
            begun = self.client.create_run(experiment, run.started, run.tags, run.name)
        id_ = begun.info.run_id
        self.client.log_batch(
            id_,
            metrics=[Metric(name, value, run.measured, 0) for name, value in run.metrics.items()],
            params=[Param(name, value) for name, value in run.parameters.items()],
            tags=[RunTag(name, value) for name, value in run.tags.items()],
        )
        inputs = [
            DatasetInput(Dataset(each.name, each.digest, "s3", each.source), [InputTag("mlflow.data.context", "train")])
            for each in run.inputs
        ]
        if inputs:
            self.client.log_inputs(id_, datasets=inputs)
        for name, text in run.artifacts.items():
            self.client.log_text(id_, text, name)
        self.client.set_terminated(id_, run.status, run.measured)
        return Tracked.TRACKED

    def _experiment(self, name: str, artifacts: str) -> str:
        if there := self.client.get_experiment_by_name(name):
            return str(there.experiment_id)
        try:
            return str(self.client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            # Another training was faster.
            if there := self.client.get_experiment_by_name(name):
                return str(there.experiment_id)
            raise
