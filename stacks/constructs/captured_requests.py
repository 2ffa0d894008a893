"""A model's captured requests as a table for SQL, and the workgroup in which its queries run.

The hours of the captured files are partitions that the table's properties project: nobody registers any.
https://docs.aws.amazon.com/athena/latest/ug/partition-projection.html
"""

from aws_cdk import Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from constructs import Construct

from noria.athena import COLUMNS
from noria.names import Area, key
from noria.spec import ModelSpec
from stacks.foundation import Foundation
from stacks.settings import Settings

LARGEST_SCAN = 2**40
"""Bytes of one query, 5 US dollars of it: a window of more is a mistake in the spec rather than traffic."""

ENGINE = "Athena engine version 3"


class CapturedRequests(Construct):
    def __init__(
        self, scope: Construct, id_: str, *, settings: Settings, spec: ModelSpec, foundation: Foundation
    ) -> None:
        super().__init__(scope, id_)
        names = settings.names
        bucket = f"s3://{foundation.data_bucket_name}"
        captured = f"{bucket}/{_folder(spec, 'captured')}{names.model(spec.model)}/"
        glue.CfnTable(
            self,
            "Table",
            catalog_id=Stack.of(self).account,
            database_name=names.database,
            table_input=glue.CfnTable.TableInputProperty(
                name=names.table(spec.model),
                description=f"Requests to {spec.model} and its answers, as its endpoint captures them",
                table_type="EXTERNAL_TABLE",
                parameters={
                    "EXTERNAL": "TRUE",
                    "classification": "json",
                    "projection.enabled": "true",
                    "projection.variant.type": "injected",
                    "projection.hour.type": "date",
                    "projection.hour.format": "yyyy/MM/dd/HH",
                    "projection.hour.interval": "1",
                    "projection.hour.interval.unit": "HOURS",
                    "projection.hour.range": f"NOW-{settings.captured_days}DAYS,NOW",
                    "storage.location.template": f"{captured}${{variant}}/${{hour}}/",
                },
                partition_keys=[
                    glue.CfnTable.ColumnProperty(name="variant", type="string"),
                    glue.CfnTable.ColumnProperty(name="hour", type="string"),
                ],
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=captured,
                    columns=[glue.CfnTable.ColumnProperty(name=name, type=kind) for name, kind in COLUMNS.items()],
                    input_format="org.apache.hadoop.mapred.TextInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library="org.openx.data.jsonserde.JsonSerDe",
                        # A line that is no record is a row without values, which counts as malformed.
                        parameters={"ignore.malformed.json": "TRUE"},
                    ),
                ),
            ),
        )
        athena.CfnWorkGroup(
            self,
            "Workgroup",
            name=names.workgroup(spec.model),
            description=f"Profiles of {spec.model}'s large windows",
            recursive_delete_option=True,
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                bytes_scanned_cutoff_per_query=LARGEST_SCAN,
                publish_cloud_watch_metrics_enabled=True,
                engine_version=athena.CfnWorkGroup.EngineVersionProperty(selected_engine_version=ENGINE),
                result_configuration=athena.CfnWorkGroup.ResultConfigurationProperty(
                    output_location=f"{bucket}/{_folder(spec, 'queries')}",
                    encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                        encryption_option="SSE_KMS", kms_key=foundation.key.key_arn
                    ),
                ),
            ),
        )


def _folder(spec: ModelSpec, area: Area) -> str:
    return key(spec.model, area, "")
