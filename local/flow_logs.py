"""AWS::EC2::FlowLog: MiniStack keeps flow logs and fills none, but its CloudFormation doesn't know the type."""

from typing import Any

from local.ministack import Change, Resource
from local.sagemaker.cloud import Cloud


class FlowLogType:
    """Ref and `Fn::GetAtt` Id give the flow log's id."""

    type = "AWS::EC2::FlowLog"
    name_property = "Id"  # which nobody chooses
    create_only = frozenset(
        {"DeliverLogsPermissionArn", "LogDestinationType", "LogGroupName", "ResourceId", "ResourceType", "TrafficType"}
    )

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, change: Change) -> Resource:
        asked = change.properties
        answer = self._ec2.create_flow_logs(
            ResourceIds=[asked["ResourceId"]],
            **{name: asked[name] for name in self.create_only - {"ResourceId"} if name in asked},
        )
        (made,) = answer["FlowLogIds"]
        return Resource(made, {"Id": made})

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        return Resource(id, {"Id": id})  # its tags are all that can change

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self._ec2.delete_flow_logs(FlowLogIds=[id])

    @property
    def _ec2(self) -> Any:
        return self._cloud.client("ec2")
