"""The reactions of docs/architecture.md: what starts each, and exactly what it may do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aws_cdk import ArnFormat, Environment, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from noria.alarms import Severity
from noria.boards import of_environment
from noria.events import CONTENT_FIELDS
from noria.feedback import FOLDER
from noria.logged import LOG_GROUP
from noria.monitors import monitors
from noria.names import EVENT_SOURCE, METRIC_NAMESPACE, Area
from noria.spec import ModelSpec
from stacks.constructs.dashboard import Dashboard
from stacks.constructs.dead_letters import DeadLetters
from stacks.constructs.generated import generated_arns
from stacks.constructs.http_api import stage
from stacks.constructs.permissions import Grant
from stacks.constructs.placement import Placement
from stacks.constructs.reaction import Reaction, Shared, Trigger, Work, layers, models_folder
from stacks.constructs.schedules import Clock
from stacks.foundation import Foundation
from stacks.settings import Registry, Settings

SETTLED_EXECUTION = ("Succeeded", "Failed", "Stopped")
SETTLED_JOB = ("Completed", "Failed", "Stopped")
SETTLED_ENDPOINT = ("IN_SERVICE", "FAILED", "OUT_OF_SERVICE", "UPDATE_ROLLBACK_FAILED")
SETTLED_STACK = (
    "CREATE_COMPLETE",
    "CREATE_FAILED",
    "ROLLBACK_COMPLETE",
    "ROLLBACK_FAILED",
    "UPDATE_COMPLETE",
    "UPDATE_FAILED",
    "UPDATE_ROLLBACK_COMPLETE",
    "UPDATE_ROLLBACK_FAILED",
)

AT_ONCE = 5
"""Of what people upload by the thousand, and of what each upload causes."""

BATCH_WORK = Work(timeout=900, memory=3008, disk=10240, concurrency=AT_ONCE)
"""For files of rows to answer: the disk, as large as can be, says how large they may be (noria.batch.LARGEST)."""

DATA_WORK = Work(timeout=900, memory=3008, disk=4096, layers=("runtime", "data", "models"))
"""For functions that read whole files: minutes, and room for a few gigabytes on disk."""

UPLOAD_WORK = replace(DATA_WORK, disk=10240, concurrency=AT_ONCE)
"""For uploads, which are brought whole: the disk says how large they may be. And for labels with days of requests."""

APPROVED = {"ModelApprovalStatus": ["Approved"], "UpdatedModelPackageFields": ["ModelApprovalStatus"]}
"""Of the detail of a package's event: somebody approved it, and not something else was changed of what is approved."""

MLFLOW = (
    "CreateExperiment",
    "CreateRun",
    "GetExperiment",
    "GetExperimentByName",
    "GetRun",
    "LogBatch",
    "LogInputs",
    "SearchRuns",
    "UpdateRun",
)
"""What writing a run asks of SageMaker's MLflow, each of one tracking server (Service Authorization Reference)."""

GROUP_OF_MODEL = "$.detail.model"
"""Of Noria's own events: what a queue is fair between."""

LANES = 40
"""How many models can have a rule of their own for their uploads, for a group is not to be had from a key: a bus has
300 rules, in some regions 100, and the pattern for what is no model's, which names all models, 2,048 characters."""

EVERYBODY = "uploads"
"""The lane of those who have none of their own."""

ANY_MODEL = "Models come and go without a change of this stack: the name's fixed part is as narrow as it gets."


def lanes(models: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Which keys are uploads, by lane: each model's own, and what is put under a name that is none of theirs.

    More models than there are lanes share one: a pattern cannot say "under incoming/, but not of these" of one key, and
    one that only says "not of these" hears all that is written for the others, held events of paused ones among it.

    Of names without a model it does hear what lies elsewhere, which validate_upload lets be; but not what comes with
    each refused upload, or each answer of an endpoint that outlived its YAML. With more areas the rule would be more
    complex than what EventBridge is known to take (`tests/infrastructure/patterns.py`); more models do not count.
    """
    if not models or len(models) > LANES:
        return {EVERYBODY: {"wildcard": "*/incoming/*"}}
    written = ["*/captured/*", "*/quarantine/*", "*/transforms/*"]
    return {
        **{model: {"prefix": f"{model}/incoming/"} for model in models},
        EVERYBODY: {"anything-but": {"wildcard": [*written, *(f"{model}/*" for model in models)]}},
    }


class Reactions(Stack):
    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        foundation: Foundation,
        specs: Sequence[ModelSpec],
        placement: Placement | None = None,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.environment_stack("reactions"),
            description=f"Noria ({settings.env}): a rule, a queue and a function for each turn of the wheel",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._prefix = settings.names.prefix
        self._foundation = foundation
        self._bucket = s3.Bucket.from_bucket_name(self, "Data", foundation.data_bucket_name)
        self._copies = s3.Bucket.from_bucket_name(self, "LedgerCopies", foundation.ledger_bucket_name)
        # Imported, so that what is granted here doesn't rewrite the key's policy in the other stack.
        self._key = kms.Key.from_key_arn(self, "Key", foundation.key.key_arn)
        self.dead_letters = DeadLetters(self, "DeadLetters", settings=settings, key=self._key, foundation=foundation)
        self._surroundings = Shared(
            settings=settings,
            key=self._key,
            layers=layers(
                self,
                prefix=self._prefix,
                target=settings.target,
                specs=specs,
                data=True,
                tracking=settings.tracking is not None,
            ),
            variables=self._variables(specs),
            placement=placement,
            dead_letters=self.dead_letters.queue,
        )

        self.validate_upload = self._validate_upload(specs)
        self.start_training = self._start_training()
        self.record_training = self._record_training()
        self.write_card = self._write_card()
        self.approve_package = self._approve_package(specs)
        self.deploy_model = self._deploy_model()
        self.confirm_deployment = self._confirm_deployment()
        self.probe_deployment = self._probe_deployment()
        self.monitor_model = self._monitor_model()
        self.keep_predictions = self._keep_predictions()
        self.join_labels = self._join_labels()
        self.predict_batch = self._predict_batch()
        if settings.tracking:
            self.track_training = self._track_training(settings.tracking)
        if settings.registry:
            self.import_package = self._import_package(settings.registry)
        self.clock = Clock(
            self,
            "Clock",
            settings=settings,
            key=self._key,
            reaching=[self.monitor_model],
        )
        for reaction in (self.deploy_model, self.confirm_deployment):
            reaction.allow(self._send(self.probe_deployment, self.confirm_deployment))
        self.deploy_model.allow(self._send(self.deploy_model))
        self._book(
            self.confirm_deployment, self.deploy_model, because="A step of a challenger is a schedule of its own."
        )
        self.request_retraining = self._request_retraining(specs)
        self.export_ledger = self._export_ledger()
        self.pausable = (
            self.validate_upload,
            self.request_retraining,
            self.start_training,
            self.approve_package,
            self.deploy_model,
            self.monitor_model,
            self.join_labels,
            self.predict_batch,
            *([self.import_package] if settings.registry else []),
        )
        for reaction in self.pausable:
            reaction.allow(self._objects("held", actions=("PutObject",)))
        self.reconcile = self._reconcile()
        reactions = [reaction for reaction in self.node.children if isinstance(reaction, Reaction)]
        Dashboard(
            self, "Board", board=of_environment(settings.names, specs, sorted(reaction.name for reaction in reactions))
        )

        # Exported whether a model uses them now or not: an export that goes while a stack still imports it fails the
        # deployment that was to end the use, as when the last model with a schedule loses it.
        for reaction in (self.request_retraining, self.monitor_model, self.deploy_model):
            self.export_value(reaction.queue.queue_arn)
        self.export_value(self.dead_letters.queue.queue_arn)
        self.export_value(self.clock.role.role_arn)
        self.export_value(self.approve_package.role.role_arn)

    # --- what is shared

    def _variables(self, specs: Sequence[ModelSpec]) -> Mapping[str, str]:
        return {
            "NORIA_ENV": self._settings.env,
            "NORIA_DATA_BUCKET": self._bucket.bucket_name,
            "NORIA_EVENT_BUS": self._foundation.bus.event_bus_name,
            "NORIA_PAGES_TOPIC": self._foundation.pages.topic_arn,
            "NORIA_NOTICES_TOPIC": self._foundation.notices.topic_arn,
            "NORIA_LEDGER_TABLE": self._foundation.ledger.table_name,
            "NORIA_LEDGER_BUCKET": self._copies.bucket_name,
            "NORIA_KEY_ARN": self._key.key_arn,
            "NORIA_MODELS_DIR": models_folder(self._settings.target, specs),
            "POWERTOOLS_SERVICE_NAME": "noria",
            "POWERTOOLS_METRICS_NAMESPACE": METRIC_NAMESPACE,
        }

    # --- those that are functions; learning is the pipeline in stacks/training.py

    def _validate_upload(self, specs: Sequence[ModelSpec]) -> Reaction:
        reaction = Reaction(
            self,
            "ValidateUpload",
            name="validate_upload",
            surroundings=self._surroundings,
            triggers=[
                self._object_put(lane, key, group=None if lane == EVERYBODY else lane)
                for lane, key in lanes([spec.model for spec in specs]).items()
            ],
            work=UPLOAD_WORK,
        )
        reaction.allow(
            # Copying an object copies its tags.
            self._objects("incoming", actions=("GetObject", "GetObjectVersion", "GetObjectVersionTagging")),
            self._objects("datasets", "quarantine", actions=("GetObject", "PutObject", "PutObjectTagging")),
            self._objects("baselines", actions=("GetObject",)),
            self._list("incoming", "datasets", "quarantine", "baselines"),
            self._on("model-package", "DescribeModelPackage"),
            *self._ledger("Query"),
            self._announce(),
            self._page(Severity.WARNING),
        )
        return reaction

    def _start_training(self) -> Reaction:
        reaction = Reaction(
            self,
            "StartTraining",
            name="start_training",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="grants",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Retraining Requested"],
                    detail={"model": [{"exists": True}]},
                    group=GROUP_OF_MODEL,
                )
            ],
        )
        reaction.allow(
            self._objects("datasets", actions=("GetObject",)),
            self._objects("trainings", actions=("GetObject", "PutObject")),
            self._list("datasets", "trainings"),
            self._on("pipeline", "StartPipelineExecution"),
            self._on("model-package", "DescribeModelPackage"),
            *self._ledger("Query"),
        )
        return reaction

    def _record_training(self) -> Reaction:
        reaction = Reaction(
            self,
            "RecordTraining",
            name="record_training",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="executions",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Model Building Pipeline Execution Status Change"],
                    detail={
                        "pipelineArn": [{"prefix": self._arn("sagemaker", "pipeline", f"{self._prefix}-")}],
                        "currentPipelineExecutionStatus": list(SETTLED_EXECUTION),
                    },
                )
            ],
        )
        reaction.allow(
            self._objects("runs", actions=("GetObject",)),
            self._list("runs"),
            self._on("pipeline", "DescribePipelineExecution", "ListPipelineExecutionSteps"),
            Grant(
                actions=["sagemaker:DescribeProcessingJob", "sagemaker:DescribeTrainingJob"],
                resources=[self._arn("sagemaker", kind, "pipelines-*") for kind in ("processing-job", "training-job")],
                because="SageMaker names the jobs of a pipeline's steps after the execution.",
            ),
            self._on("model-package", "DescribeModelPackage"),
            *self._ledger("Query"),
            self._announce(),
            self._page(Severity.WARNING),
        )
        return reaction

    def _approve_package(self, specs: Sequence[ModelSpec]) -> Reaction:
        """Asked by people through an HTTP API, which proves who they are, and by events where nobody is asked."""
        reaction = Reaction(
            self,
            "ApprovePackage",
            name="approve_package",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="trainings",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Training Ended"],
                    detail={"model": [{"exists": True}], "outcome": ["succeeded"]},
                )
            ],
        )
        reaction.allow(
            self._on("model-package", "DescribeModelPackage", "UpdateModelPackage"),
            self._objects("runs", actions=("GetObject",)),
            self._list("runs"),
            *self._ledger("Query"),
            self._page(Severity.WARNING),
        )
        name = self._settings.names.function("approve-package")
        api = apigateway.HttpApi(
            reaction, "Api", api_name=name, description="Approvals of versions", create_default_stage=False
        )
        stage(reaction, api, name=name, settings=self._settings, key=self._key, rate=5, burst=10)
        api.add_routes(
            path="/approvals/{model}",  # so that IAM can tell models apart
            methods=[apigateway.HttpMethod.POST],
            integration=integrations.HttpLambdaIntegration("Function", reaction.function),
            authorizer=authorizers.HttpIamAuthorizer(),
        )
        for spec in specs:
            if spec.approval.strict:
                ssm.StringParameter(
                    reaction,
                    f"Approvals-{spec.model}",
                    parameter_name=self._settings.names.approvals(spec.model),
                    string_value=f"{api.api_endpoint}/approvals/{spec.model}",
                    description=f"Where versions of {spec.model} are approved",
                )
        return reaction

    def _write_card(self) -> Reaction:
        reaction = Reaction(
            self,
            "WriteCard",
            name="write_card",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="packages",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Model Package State Change"],
                    # Of what waits for a decision, the end of its training tells.
                    detail={
                        "ModelPackageGroupName": [{"prefix": f"{self._prefix}-"}],
                        "ModelApprovalStatus": ["Approved", "PendingManualApproval", "Rejected"],
                        "UpdatedModelPackageFields": ["ModelApprovalStatus"],
                    },
                ),
                Trigger(
                    name="outcomes",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Training Ended", "Model Deployed", "Model Rolled Back"],
                    detail={"model": [{"exists": True}]},
                ),
            ],
            # Profiles are DuckDB's, whose module comes with their types.
            work=Work(timeout=120, memory=1024, layers=("runtime", "data", "models")),
        )
        reaction.allow(
            self._on("model-package", "DescribeModelPackage"),
            self._on("model-card", "AddTags", "CreateModelCard", "DescribeModelCard", "UpdateModelCard"),
            self._objects("baselines", "datasets", "runs", "trainings", actions=("GetObject",)),
            self._list("baselines", "datasets", "runs", "trainings"),
            Grant(actions=["dynamodb:Query"], resources=[self._foundation.ledger.table_arn]),
            # What it reads, and the cards, are encrypted with the environment's key.
            Grant(actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], resources=[self._key.key_arn]),
        )
        return reaction

    def _track_training(self, server: str) -> Reaction:
        reaction = Reaction(
            self,
            "TrackTraining",
            name="track_training",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="trainings",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Training Ended"],
                    detail={"model": [{"exists": True}]},
                )
            ],
            work=Work(
                timeout=110,  # below what a claim of the ledger lasts
                memory=1024,
                layers=("runtime", "data", "models", "tracking"),
                variables={"NORIA_TRACKING_URI": server},
            ),
        )
        reaction.allow(
            self._on("model-package", "DescribeModelPackage"),
            self._objects("baselines", "runs", "trainings", actions=("GetObject",)),
            self._objects("tracking", actions=("PutObject",)),
            self._list("baselines", "runs", "trainings"),
            Grant(actions=["dynamodb:PutItem", "dynamodb:Query"], resources=[self._foundation.ledger.table_arn]),
            Grant(actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], resources=[self._key.key_arn]),
        )
        if server.startswith("arn:"):
            reaction.allow(Grant(actions=[f"sagemaker-mlflow:{action}" for action in MLFLOW], resources=[server]))
        return reaction

    def _deploy_model(self) -> Reaction:
        reaction = Reaction(
            self,
            "DeployModel",
            name="deploy_model",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="packages",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Model Package State Change"],
                    detail={
                        "ModelPackageGroupName": [{"prefix": f"{self._prefix}-"}],
                        "ModelApprovalStatus": ["Approved", "PendingManualApproval", "Rejected"],
                        # Its approval, or what that was of: the function tells them apart.
                        "UpdatedModelPackageFields": ["ModelApprovalStatus", *sorted(CONTENT_FIELDS)],
                    },
                ),
                self._serving_stack_settled(),
                Trigger(
                    name="requests",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Serving Requested"],
                    detail={"model": [{"exists": True}]},
                ),
                self._alarm_raised("challengers", {"wildcard": "*-challenger-*"}),
            ],
        )
        reaction.allow(
            self._on("model-package", "DescribeModelPackage", "UpdateModelPackage"),
            self._objects("runs", actions=("GetObject",)),
            self._list("runs"),
            self._serving_stacks("DescribeStackEvents", "DescribeStacks", "UpdateStack"),
            self._pass_deployers(),
            self._see_alarms(),
            self._see_metrics(),
            *self._ledger("Query"),
            self._announce(),
            self._page(*Severity),
        )
        return reaction

    def _confirm_deployment(self) -> Reaction:
        reaction = Reaction(
            self,
            "ConfirmDeployment",
            name="confirm_deployment",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="endpoints",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Endpoint State Change"],
                    detail={
                        "EndpointName": [{"prefix": f"{self._prefix}-"}],
                        "EndpointStatus": list(SETTLED_ENDPOINT),
                    },
                ),
                Trigger(
                    name="deployments",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Endpoint Deployment State Change"],
                    detail={"EndpointName": [{"prefix": f"{self._prefix}-"}]},
                ),
                self._serving_stack_settled(),
            ],
        )
        reaction.allow(
            self._on("endpoint", "DescribeEndpoint"),
            self._on_generated("DescribeEndpointConfig", "DeleteEndpointConfig", "DescribeModel", "DeleteModel"),
            self._on("model-package", "DescribeModelPackage", "UpdateModelPackage"),
            self._objects("runs", actions=("GetObject",)),
            self._list("runs"),
            self._serving_stacks("DescribeStackEvents", "DescribeStacks", "ListStackResources", "UpdateStack"),
            self._pass_deployers(),
            *self._ledger("Query"),
            self._announce(),
            self._page(*Severity),
        )
        return reaction

    def _probe_deployment(self) -> Reaction:
        reaction = Reaction(
            self,
            "ProbeDeployment",
            name="probe_deployment",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="endpoints",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Endpoint State Change"],
                    detail={"EndpointName": [{"prefix": f"{self._prefix}-"}], "EndpointStatus": ["IN_SERVICE"]},
                ),
                Trigger(
                    name="deployments",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Endpoint Deployment State Change"],
                    detail={"EndpointName": [{"prefix": f"{self._prefix}-"}]},
                ),
            ],
            # Two versions are asked for at most 45 seconds each, and the last answer of each may take as long.
            work=Work(timeout=240, memory=1024, layers=("runtime", "data", "models")),
        )
        reaction.allow(
            self._on("endpoint", "DescribeEndpoint", "InvokeEndpoint"),
            self._on_generated("DescribeEndpointConfig", "DescribeModel"),
            self._on("model-package", "DescribeModelPackage"),
            self._objects("captured", "baselines", actions=("GetObject",)),
            self._list("captured", "baselines"),
            Grant(actions=["sqs:GetQueueUrl", "sqs:SendMessage"], resources=[reaction.queue.queue_arn]),
            self._measure(),
            *self._ledger("Query"),
            self._page(*Severity),
        )
        return reaction

    def _monitor_model(self) -> Reaction:
        reaction = Reaction(self, "MonitorModel", name="monitor_model", surroundings=self._surroundings, work=DATA_WORK)
        reaction.allow(
            self._objects("captured", "baselines", "labelled", actions=("GetObject",)),
            self._objects("reports", actions=("GetObject", "PutObject")),
            self._list("captured", "baselines", "labelled", "reports"),
            self._on("model-package", "DescribeModelPackage"),
            self._on("endpoint", "DescribeEndpoint", "InvokeEndpoint"),
            self._on_generated("DescribeEndpointConfig", "DescribeModel"),
            self._measure(),
            self._see_metrics(),
            *self._ledger("Query"),
            *self._ask_athena(),
        )
        return reaction

    def _ask_athena(self) -> tuple[Grant, ...]:
        """Query the captured requests of any model. Athena reads the table, the files and its results as who asks."""
        database = self._settings.names.database
        return (
            Grant(
                actions=[
                    "athena:GetQueryExecution",
                    "athena:GetQueryResults",
                    "athena:StartQueryExecution",
                    "athena:StopQueryExecution",
                ],
                resources=[self._arn("athena", "workgroup", self._settings.names.workgroup("*"))],
                because=ANY_MODEL,
            ),
            Grant(
                actions=["glue:GetDatabase", "glue:GetPartitions", "glue:GetTable"],
                resources=[
                    self.format_arn(service="glue", resource="catalog"),
                    self._arn("glue", "database", database),
                    self._arn("glue", "table", f"{database}/*"),
                ],
                because=ANY_MODEL,
            ),
            self._objects(
                "queries", actions=("AbortMultipartUpload", "GetObject", "ListMultipartUploadParts", "PutObject")
            ),
            self._list("queries"),
            Grant(actions=["s3:GetBucketLocation"], resources=[self._bucket.bucket_arn]),
        )

    def _keep_predictions(self) -> Reaction:
        """Log lines come from CloudWatch Logs without a rule and a queue; what fails goes to the queue as elsewhere."""
        reaction = Reaction(self, "KeepPredictions", name="keep_predictions", surroundings=self._surroundings)
        lambda_.CfnPermission(
            reaction,
            "Logs-invoke",
            action="lambda:InvokeFunction",
            function_name=reaction.function.function_arn,
            principal="logs.amazonaws.com",
            source_account=self.account,
            source_arn=self.format_arn(
                service="logs",
                resource="log-group",
                resource_name=f"{LOG_GROUP}{self._prefix}-*:*",
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            ),
        )
        lambda_.CfnEventInvokeConfig(
            reaction,
            "Failures",
            function_name=reaction.function.function_name,
            qualifier="$LATEST",
            maximum_retry_attempts=0,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=reaction.queue.queue_arn)
            ),
        )
        reaction.allow(
            self._objects("captured", actions=("PutObject",)),
            Grant(
                actions=["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
                resources=[self._key.key_arn],
            ),
            Grant(actions=["sqs:SendMessage"], resources=[reaction.queue.queue_arn]),
        )
        return reaction

    def _join_labels(self) -> Reaction:
        reaction = Reaction(
            self,
            "JoinLabels",
            name="join_labels",
            surroundings=self._surroundings,
            triggers=[
                self._object_created("labels", "labels"),
                Trigger(
                    name="told",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Labels Told"],
                    detail={"model": [{"exists": True}]},
                ),
            ],
            work=UPLOAD_WORK,
        )
        reaction.allow(
            self._objects("labels", actions=("GetObject", "GetObjectVersion", "PutObject")),
            self._objects("labelled", actions=("GetObject", "PutObject")),
            self._objects("captured", "runs", actions=("GetObject",)),
            Grant(
                actions=["s3:PutObject"],
                resources=[self._bucket.arn_for_objects(f"*/incoming/{FOLDER}*")],
                because=ANY_MODEL,
            ),
            self._objects("reports", actions=("PutObject",)),
            self._list("labelled", "captured", "incoming"),
            self._on("model-package", "DescribeModelPackage"),
            self._send(reaction),
            self._measure(),
            *self._ledger("Query"),
            self._page(Severity.WARNING),
        )
        return reaction

    def _predict_batch(self) -> Reaction:
        reaction = Reaction(
            self,
            "PredictBatch",
            name="predict_batch",
            surroundings=self._surroundings,
            triggers=[
                # All of them, and so results too, which it leaves alone: what it cannot answer it must refuse.
                self._object_created("uploads", "batch"),
                Trigger(
                    name="jobs",
                    source="aws.sagemaker",
                    detail_types=["SageMaker Transform Job State Change"],
                    detail={
                        "TransformJobName": [{"prefix": f"{self._prefix}-"}],
                        "TransformJobStatus": list(SETTLED_JOB),
                    },
                ),
            ],
            work=BATCH_WORK,
        )
        reaction.allow(
            self._objects("batch", actions=("GetObject", "GetObjectVersion", "PutObject")),
            self._objects("transforms", actions=("GetObject", "PutObject")),
            self._objects("runs", actions=("GetObject",)),
            self._list("batch", "transforms", "runs"),
            self._on("transform-job", "CreateTransformJob", "DescribeTransformJob"),
            self._on("endpoint", "DescribeEndpoint"),
            self._on_generated("DescribeEndpointConfig", "DescribeModel"),
            self._on("model-package", "DescribeModelPackage"),
            self._serving_stacks("DescribeStacks"),
            *self._ledger("Query"),
            self._page(*Severity),
        )
        return reaction

    def _import_package(self, registry: Registry) -> Reaction:
        there = f"noria-{registry.env}"
        bucket = f"{there}-data-{registry.account}-{self.region}"
        packages = f"arn:aws:sagemaker:{self.region}:{registry.account}:model-package/{there}-"
        reaction = Reaction(
            self,
            "ImportPackage",
            name="import_package",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="approvals",
                    bus=self._foundation.bus,
                    source="aws.sagemaker",
                    detail_types=["SageMaker Model Package State Change"],
                    detail={"ModelPackageArn": [{"prefix": packages}], **APPROVED},
                )
            ],
            work=Work(
                timeout=900,
                variables={
                    "NORIA_REGISTRY_ENV": registry.env,
                    "NORIA_REGISTRY_ACCOUNT": registry.account,
                    "NORIA_REGISTRY_BUCKET": bucket,
                },
            ),
        )
        reaction.allow(
            Grant(actions=["sagemaker:DescribeModelPackage"], resources=[f"{packages}*"], because=ANY_MODEL),
            self._on("model-package", "CreateModelPackage", "DescribeModelPackage", "UpdateModelPackage"),
            self._on("model-package-group", "CreateModelPackage"),
            Grant(
                actions=["s3:GetObject"],
                resources=[f"arn:aws:s3:::{bucket}/*/{area}/*" for area in ("baselines", "runs")],
                because=ANY_MODEL,
            ),
            Grant(actions=["kms:Decrypt", "kms:DescribeKey"], resources=[registry.key]),
            self._objects("baselines", "runs", actions=("GetObject", "PutObject")),
            *self._ledger("Query"),
        )
        return reaction

    def _request_retraining(self, specs: Sequence[ModelSpec]) -> Reaction:
        # Of segments there may be many, and a pattern is short; the function knows which alarms are meant.
        triggers = [monitor for spec in specs for monitor in monitors(spec) if monitor.trigger]
        asking = [{"suffix": f"-{name}"} for name in sorted({each.name for each in triggers if not each.segment})]
        asking += [{"wildcard": f"*-{name}-*"} for name in sorted({each.runbook for each in triggers if each.segment})]
        reaction = Reaction(
            self,
            "RequestRetraining",
            name="request_retraining",
            surroundings=self._surroundings,
            work=Work(concurrency=AT_ONCE),
            triggers=[
                *([self._alarm_raised("alarms", *asking)] if asking else []),
                Trigger(
                    name="causes",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Dataset Accepted", "Retraining Wanted", "Training Ended"],
                    detail={"model": [{"exists": True}]},
                    group=GROUP_OF_MODEL,
                ),
            ],
        )
        self._book(
            reaction, reaction, because="A re-check is a schedule of its own, named after what it looks at again."
        )
        reaction.allow(self._see_alarms(), *self._ledger("Query"), self._announce())
        return reaction

    def _export_ledger(self) -> Reaction:
        """Fed by the table's stream, and by the queue with what the stream failed to tell."""
        reaction = Reaction(
            self, "ExportLedger", name="export_ledger", surroundings=self._surroundings, work=Work(timeout=300)
        )
        stream = str(self._foundation.ledger.table_stream_arn)
        entries = {"dynamodb": {"Keys": {"sk": {"S": [{"prefix": "entry#"}]}}}}
        # The L2 source would grant more than this, and on more.
        mapping = lambda_.CfnEventSourceMapping(
            reaction,
            "Stream",
            function_name=reaction.function.function_name,
            event_source_arn=stream,
            starting_position="TRIM_HORIZON",
            batch_size=100,
            bisect_batch_on_function_error=True,
            maximum_retry_attempts=10,
            destination_config=lambda_.CfnEventSourceMapping.DestinationConfigProperty(
                on_failure=lambda_.CfnEventSourceMapping.OnFailureProperty(destination=reaction.dead_letters.queue_arn)
            ),
            filter_criteria=lambda_.CfnEventSourceMapping.FilterCriteriaProperty(
                filters=[lambda_.CfnEventSourceMapping.FilterProperty(pattern=json.dumps(entries))]
            ),
        )
        mapping.node.add_dependency(reaction.role)  # Lambda refuses a mapping whose role may not read the stream
        reaction.allow(
            Grant(
                actions=[f"dynamodb:{action}" for action in ("DescribeStream", "GetRecords", "GetShardIterator")],
                resources=[stream],
            ),
            Grant(
                actions=["dynamodb:ListStreams"],
                resources=[
                    self._arn("dynamodb", "table", f"{self._settings.names.environment_stack('foundation')}-*/stream/*")
                ],
                because="Streams are listed of a table, whose name CloudFormation makes up.",
            ),
            Grant(actions=["dynamodb:Query"], resources=[self._foundation.ledger.table_arn]),
            Grant(
                actions=["s3:GetObject", "s3:PutObject"],
                resources=[self._copies.arn_for_objects("*")],
                because="The bucket holds nothing but copies of the ledger's entries, of any model.",
            ),
            Grant(actions=["s3:ListBucket"], resources=[self._copies.bucket_arn]),
            Grant(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[self._key.key_arn]),
            Grant(actions=["sqs:SendMessage"], resources=[reaction.dead_letters.queue_arn]),
            self._page(Severity.CRITICAL),
        )
        return reaction

    def _reconcile(self) -> Reaction:
        reaction = Reaction(
            self,
            "Reconcile",
            name="reconcile",
            surroundings=self._surroundings,
            triggers=[
                Trigger(
                    name="wishes",
                    bus=self._foundation.bus,
                    source=EVENT_SOURCE,
                    detail_types=["Pause Requested", "Events Sent Again"],
                    detail={"model": [{"exists": True}]},
                )
            ],
            work=Work(timeout=300),
        )
        replayed = (
            self.validate_upload,
            self.request_retraining,
            self.start_training,
            self.record_training,
            self.write_card,
            self.approve_package,
            self.deploy_model,
            self.confirm_deployment,
            self.predict_batch,
            self.join_labels,
            self.export_ledger,
        )
        reaction.allow(
            Grant(actions=["s3:ListBucket"], resources=[self._copies.bucket_arn]),
            self._send(*dict.fromkeys((*replayed, *self.pausable))),
            Grant(actions=["sqs:GetQueueAttributes"], resources=[other.queue.queue_arn for other in replayed]),
            self._list("held"),
            self._objects("held", actions=("DeleteObject", "GetObject")),
            self._page(Severity.WARNING),
            self._list("incoming", "labels", "batch", action="ListBucketVersions"),
            self._on("transform-job", "DescribeTransformJob"),
            self._list("datasets"),
            self._objects("datasets", actions=("GetObject",)),
            self._on("pipeline", "ListPipelineExecutions", "DescribePipelineExecution"),
            self._everywhere("sagemaker:ListModelPackages", because="SageMaker's ListModelPackages knows no resource."),
            self._on("model-package", "DescribeModelPackage"),
            self._on("endpoint", "DescribeEndpoint"),
            self._on_generated("DescribeEndpointConfig", "DescribeModel"),
            self._serving_stacks("DescribeStacks", "ListStackResources"),
            self._on("action", "AddAssociation", "CreateAction", "DescribeAction", "UpdateAction"),
            Grant(
                actions=["sagemaker:AddAssociation", "sagemaker:CreateArtifact"],
                resources=[self._arn("sagemaker", "artifact", "*")],
                because="SageMaker makes up the names of artifacts, its own of model packages among them.",
            ),
            self._everywhere(
                "sagemaker:ListArtifacts",
                "sagemaker:ListAssociations",
                because="SageMaker's ListArtifacts and ListAssociations know no resource.",
            ),
            *self._ledger("Query"),
        )
        self.clock.reach(reaction)
        self.clock.schedule(
            self,
            "ReconcileSchedule",
            name=f"{self._prefix}-reconcile",
            expression="rate(5 minutes)",
            reaction=reaction,
            detail_type="Reconcile",
            detail={},
        )
        return reaction

    # --- what starts them

    def _object_created(self, name: str, area: Area) -> Trigger:
        return self._object_put(name, {"wildcard": f"*/{area}/*"})

    def _object_put(self, name: str, key: Mapping[str, Any], *, group: str | None = None) -> Trigger:
        return Trigger(
            name=name,
            source="aws.s3",
            detail_types=["Object Created"],
            detail={"bucket": {"name": [self._bucket.bucket_name]}, "object": {"key": [dict(key)]}},
            group=group,
        )

    def _serving_stack_settled(self) -> Trigger:
        stacks = self._arn("cloudformation", "stack", f"{self._settings.names.stack('*', 'serving')}/*")
        return Trigger(
            name="stacks",
            source="aws.cloudformation",
            detail_types=["CloudFormation Stack Status Change"],
            detail={"stack-id": [{"wildcard": stacks}], "status-details": {"status": list(SETTLED_STACK)}},
        )

    def _alarm_raised(self, name: str, *names: Mapping[str, str]) -> Trigger:
        # Whose alarm it is, its ARN says: each wildcard in a name makes the rule more complex.
        return Trigger(
            name=name,
            source="aws.cloudwatch",
            detail_types=["CloudWatch Alarm State Change"],
            detail={"alarmName": [dict(each) for each in names], "state": {"value": ["ALARM"]}},
            about=self.format_arn(
                service="cloudwatch",
                resource="alarm",
                resource_name=f"{self._prefix}-",
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            ),
        )

    # --- what they may do

    def _book(self, reaction: Reaction, started: Reaction, *, because: str) -> None:
        """Let a reaction book schedules that start one, which may be itself."""
        self.clock.reach(started)
        for name, value in {
            "NORIA_SCHEDULE_GROUP": self.clock.group,
            "NORIA_SCHEDULE_ROLE_ARN": self.clock.role.role_arn,
            "NORIA_QUEUE_ARN": started.queue.queue_arn,
            "NORIA_DEAD_LETTERS_ARN": started.dead_letters.queue_arn,
        }.items():
            reaction.function.add_environment(name, value)
        reaction.allow(
            Grant(
                actions=["scheduler:CreateSchedule"],
                resources=[self._arn("scheduler", "schedule", f"{self.clock.group}/*")],
                because=because,
            ),
            Grant(
                actions=["iam:PassRole"],
                resources=[self.clock.role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
            ),
        )

    def _send(self, *reactions: Reaction) -> Grant:
        return Grant(
            actions=["sqs:GetQueueUrl", "sqs:SendMessage"], resources=[other.queue.queue_arn for other in reactions]
        )

    def _see_alarms(self) -> Grant:
        return self._everywhere(
            "cloudwatch:DescribeAlarms", because="CloudWatch doesn't narrow DescribeAlarms to single alarms."
        )

    def _see_metrics(self) -> Grant:
        return self._everywhere("cloudwatch:GetMetricData", because="CloudWatch's GetMetricData knows no resource.")

    def _arn(self, service: str, resource: str, name: str) -> str:
        return self.format_arn(service=service, resource=resource, resource_name=name)

    def _on(self, resource: str, *actions: str) -> Grant:
        """Actions on this environment's SageMaker resources of one kind, which are named after its models."""
        return Grant(
            actions=[f"sagemaker:{action}" for action in actions],
            resources=[self._arn("sagemaker", resource, f"{self._prefix}-*")],
            because=ANY_MODEL,
        )

    def _on_generated(self, *actions: str) -> Grant:
        return Grant(
            actions=[f"sagemaker:{action}" for action in actions],
            resources=generated_arns(self, self._prefix),
            because="CloudFormation makes up the names of models and endpoint configurations.",
        )

    def _everywhere(self, *actions: str, because: str) -> Grant:
        return Grant(actions=actions, resources=["*"], because=because)

    def _objects(self, *areas: Area, actions: Sequence[str]) -> Grant:
        return Grant(
            actions=[f"s3:{action}" for action in actions],
            resources=[self._bucket.arn_for_objects(f"*/{area}/*") for area in areas],
            because=ANY_MODEL,
        )

    def _list(self, *areas: Area, action: str = "ListBucket") -> Grant:
        return Grant(
            actions=[f"s3:{action}"],
            resources=[self._bucket.bucket_arn],
            # IfExists: only who may list is told that an object is missing, and asks for it without a prefix.
            conditions={"StringLikeIfExists": {"s3:prefix": [f"*/{area}/*" for area in areas]}},
        )

    def _ledger(self, *more: str) -> tuple[Grant, Grant]:
        """The ledger's table, and the key that it, the bucket, the topic and the queues are encrypted with."""
        return (
            Grant(
                actions=[f"dynamodb:{action}" for action in ("GetItem", "PutItem", *more)],
                resources=[self._foundation.ledger.table_arn],
            ),
            Grant(
                actions=["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
                resources=[self._key.key_arn],
            ),
        )

    def _announce(self) -> Grant:
        return Grant(
            actions=["events:PutEvents"],
            resources=[self._foundation.bus.event_bus_arn],
            conditions={"StringEquals": {"events:source": EVENT_SOURCE}},
        )

    def _page(self, *severities: Severity) -> Grant:
        topics = {Severity.CRITICAL: self._foundation.pages, Severity.WARNING: self._foundation.notices}
        return Grant(actions=["sns:Publish"], resources=[topics[severity].topic_arn for severity in severities])

    def _measure(self) -> Grant:
        return Grant(
            actions=["cloudwatch:PutMetricData"],
            resources=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": METRIC_NAMESPACE}},
            because="CloudWatch narrows PutMetricData by namespace, as the condition does, and not by resource.",
        )

    def _serving_stacks(self, *actions: str) -> Grant:
        return Grant(
            actions=[f"cloudformation:{action}" for action in actions],
            resources=[self._arn("cloudformation", "stack", f"{self._settings.names.stack('*', 'serving')}/*")],
            because=ANY_MODEL,
        )

    def _pass_deployers(self) -> Grant:
        return Grant(
            actions=["iam:PassRole"],
            resources=[
                self.format_arn(
                    service="iam", region="", resource="role", resource_name=f"{self._settings.deployer_path[1:]}*"
                )
            ],
            conditions={"StringEquals": {"iam:PassedToService": "cloudformation.amazonaws.com"}},
            because=ANY_MODEL,
        )
