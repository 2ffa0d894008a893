"""AWS::CloudWatch::CompositeAlarm: MiniStack has composite alarms, but its CloudFormation doesn't know the type."""

from typing import Any

from local.ministack import Change, Resource
from local.sagemaker.cloud import Cloud

_TRUTHS = {"true": True, "false": False}


class CompositeAlarmType:
    """Ref gives the alarm's name, `Fn::GetAtt` its Arn. PutCompositeAlarm overwrites all but the state and the tags."""

    type = "AWS::CloudWatch::CompositeAlarm"
    name_property = "AlarmName"
    create_only = frozenset({"AlarmName"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, change: Change) -> Resource:
        name = change.properties.get("AlarmName", change.generated_name)
        # CloudFormation's own tags nobody may give by hand.
        tags = [tag for tag in change.properties.get("Tags", []) if not tag["Key"].startswith("aws:")]
        return self._put(name, change, Tags=tags)

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        return self._put(id, change)

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self._alarms.delete_alarms(AlarmNames=[id])

    def _put(self, name: str, change: Change, **tags: Any) -> Resource:
        members = {key: value for key, value in change.properties.items() if key not in ("AlarmName", "Tags")}
        if isinstance(enabled := members.get("ActionsEnabled"), str):  # templates may write truths as text
            members["ActionsEnabled"] = _TRUTHS[enabled.lower()]
        self._alarms.put_composite_alarm(AlarmName=name, **members, **tags)
        (made,) = self._alarms.describe_alarms(AlarmNames=[name], AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
        return Resource(name, {"Arn": made["AlarmArn"]})

    @property
    def _alarms(self) -> Any:
        return self._cloud.client("cloudwatch")
