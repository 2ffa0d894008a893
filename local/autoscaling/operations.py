"""Application Auto Scaling's API: targets, policies and scheduled actions, registered, described and taken back.

Each operation is a method that gets the validated request and returns the response, as `local.sagemaker.api` wants it.
"""

import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from botocore.exceptions import ClientError

from local.autoscaling import schedule
from local.autoscaling.state import Action, Policy, State, Target
from local.ministack import Permission
from local.sagemaker.api import Document, Problem, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.listing import page

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PRINCIPAL = "sagemaker.application-autoscaling.amazonaws.com"
# Minutes above the target before a target tracking policy scales out, and below 90 % of it before it scales in.
# AWS's alarms show these numbers; its guide says only that scaling in is the slower.
MINUTES_ABOVE, MINUTES_BELOW = 3, 15
SCALE_IN_BELOW = 0.9
DEFAULT_COOLDOWN = 300

_METRICS = {
    "SageMakerVariantInvocationsPerInstance": {
        "Namespace": "AWS/SageMaker",
        "MetricName": "InvocationsPerInstance",
        "Statistic": "Sum",
    }
}


class Operations:
    def __init__(self, cloud: Cloud, state: State) -> None:
        self._cloud = cloud
        self._state = state

    # --- targets

    def register_scalable_target(self, request: Document) -> Document:
        _supported(request)
        target = self._state.find(request)
        if target is None:
            self._variant(request["ResourceId"])
            if not {"MinCapacity", "MaxCapacity"} <= set(request):
                raise invalid("MinCapacity and MaxCapacity are required to register a scalable target.")
        least = request.get("MinCapacity", target.least if target else 0)
        most = request.get("MaxCapacity", target.most if target else 0)
        if not 0 <= least <= most:
            raise invalid(f"Maximum capacity {most} and minimum capacity {least} must satisfy 0 <= minimum <= maximum.")
        with self._state.lock:
            if target is None:
                target = self._new_target(request)
            target.least, target.most = least, most
            target.suspended |= request.get("SuspendedState", {})
            if "Tags" in request:
                self._state.tags[target.arn] = dict(request["Tags"])
        return {"ScalableTargetARN": target.arn}

    def deregister_scalable_target(self, request: Document) -> Document:
        self.remove(self._target(request))
        return {}

    def describe_scalable_targets(self, request: Document) -> Document:
        wanted = request.get("ResourceIds")
        found = [
            {
                **_of(target),
                "MinCapacity": target.least,
                "MaxCapacity": target.most,
                "RoleARN": target.role_arn,
                "CreationTime": target.created,
                "SuspendedState": target.suspended,
                "ScalableTargetARN": target.arn,
            }
            for target in self._matching(request)
            if wanted is None or target.resource_id in wanted
        ]
        return _page("ScalableTargets", found, request)

    def remove(self, target: Target) -> None:
        """Deregister a target: its policies and scheduled actions go with it."""
        self._state.remove(target)
        for policy in target.policies.values():
            self._delete_alarms(policy)

    # --- policies

    def put_scaling_policy(self, request: Document) -> Document:
        _supported(request)
        target, name = self._target(request), request["PolicyName"]
        known = target.policies.get(name)
        kind = request.get("PolicyType", known.type if known else "StepScaling")
        if known and known.type != kind:
            raise invalid(f"Policy {name} is a {known.type} policy; delete it to make it {kind}.")
        config = request.get(f"{kind}PolicyConfiguration")
        if kind == "StepScaling":
            _check_steps(config)
        elif kind == "TargetTrackingScaling":
            _check_tracking(config)
        else:
            raise invalid(f"Policy type {kind} is not supported for {NAMESPACE}.")
        policy = known or Policy(
            name, self._arn("scalingPolicy", target, f"policyName/{name}"), kind, {}, self._cloud.now()
        )
        policy.config = config or {}
        if kind == "TargetTrackingScaling":
            self._put_alarms(target, policy)
        with self._state.lock:
            target.policies[name] = policy
        return {"PolicyARN": policy.arn, "Alarms": policy.alarms}

    def delete_scaling_policy(self, request: Document) -> Document:
        target, name = self._target(request), request["PolicyName"]
        with self._state.lock:
            policy = target.policies.pop(name, None)
        if policy is None:
            raise _not_found(f"scaling policy {name}", request)
        self._delete_alarms(policy)
        return {}

    def describe_scaling_policies(self, request: Document) -> Document:
        wanted = request.get("PolicyNames")
        found = [
            {
                **_of(target),
                "PolicyARN": policy.arn,
                "PolicyName": policy.name,
                "PolicyType": policy.type,
                f"{policy.type}PolicyConfiguration": policy.config,
                "Alarms": policy.alarms or self._alarms_of(policy),
                "CreationTime": policy.created,
            }
            for target in self._matching(request)
            for policy in list(target.policies.values())
            if wanted is None or policy.name in wanted
        ]
        return _page("ScalingPolicies", found, request)

    # --- scheduled actions

    def put_scheduled_action(self, request: Document) -> Document:
        _supported(request)
        target, name = self._target(request), request["ScheduledActionName"]
        known = target.actions.get(name)
        bounds = request.get("ScalableTargetAction") or (known.bounds if known else {})
        expression = request.get("Schedule") or (known.schedule if known else None)
        if expression is None or not bounds:
            raise invalid("Schedule and ScalableTargetAction are required to create a scheduled action.")
        if bounds.get("MinCapacity", 0) > bounds.get("MaxCapacity", float("inf")):
            raise invalid("ScalableTargetAction's MinCapacity must not be larger than its MaxCapacity.")
        action = Action(
            name=name,
            arn=known.arn if known else self._arn("scheduledAction", target, f"scheduledActionName/{name}"),
            schedule=expression,
            timezone=request.get("Timezone") or (known.timezone if known else None),
            start=request.get("StartTime"),
            end=request.get("EndTime"),
            bounds=bounds,
            created=known.created if known else self._cloud.now(),
            due=None,
        )
        try:
            action.due = self.next_moment(action, self._cloud.now())
        except ValueError as error:
            raise invalid(f"Schedule {expression}: {error}") from error
        with self._state.lock:
            target.actions[name] = action
        return {}

    def delete_scheduled_action(self, request: Document) -> Document:
        target, name = self._target(request), request["ScheduledActionName"]
        with self._state.lock:
            if target.actions.pop(name, None) is None:
                raise _not_found(f"scheduled action {name}", request)
        return {}

    def describe_scheduled_actions(self, request: Document) -> Document:
        wanted = request.get("ScheduledActionNames")
        found = [
            {
                **_of(target),
                "ScheduledActionName": action.name,
                "ScheduledActionARN": action.arn,
                "Schedule": action.schedule,
                "Timezone": action.timezone,
                "StartTime": action.start,
                "EndTime": action.end,
                "ScalableTargetAction": action.bounds,
                "CreationTime": action.created,
            }
            for target in self._matching(request)
            for action in list(target.actions.values())
            if wanted is None or action.name in wanted
        ]
        return _page("ScheduledActions", found, request)

    def next_moment(self, action: Action, after: datetime) -> datetime | None:
        """When an action is due next, within its start and its end. Raises ValueError for a malformed schedule."""
        begin = max(after, action.start) if action.start else after
        due = schedule.following(
            action.schedule, begin, timezone=action.timezone or "UTC", time_scale=self._cloud.time_scale
        )
        return None if due is None or (action.end and due > action.end) else due

    # --- activities and tags

    def describe_scaling_activities(self, request: Document) -> Document:
        everything = request.get("IncludeNotScaledActivities", False)
        found = [
            {**_of(target), **activity}
            for target in self._matching(request)
            for activity in reversed(target.activities)
            if everything or "NotScaledReasons" not in activity
        ]
        return _page("ScalingActivities", found, request)

    def list_tags_for_resource(self, request: Document) -> Document:
        return {"Tags": dict(self._tags(request))}

    def tag_resource(self, request: Document) -> Document:
        with self._state.lock:
            self._tags(request).update(request["Tags"])
        return {}

    def untag_resource(self, request: Document) -> Document:
        with self._state.lock:
            for key in request["TagKeys"]:
                self._tags(request).pop(key, None)
        return {}

    # --- permissions

    def permissions(self, operation: str, request: Document) -> list[Permission]:
        """What a caller needs: the action on the target, and what Application Auto Scaling does for the caller.

        https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsapplicationautoscaling.html
        https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_id-based-policy-examples.html
        """
        action = f"application-autoscaling:{operation}"
        if operation.startswith("Describe"):
            return [Permission(action)]
        keys = {
            f"application-autoscaling:{key}": str(request[member])
            for key, member in (("service-namespace", "ServiceNamespace"), ("scalable-dimension", "ScalableDimension"))
            if member in request
        }
        target = self._state.find(request)
        arn = request.get("ResourceARN") or (target.arn if target else self._target_arn("*"))
        needed = [Permission(action, arn, keys)]
        match operation:
            case "RegisterScalableTarget":
                endpoint = self._cloud.arn("endpoint", str(request.get("ResourceId")).split("/")[1:2][0])
                needed += [
                    Permission("sagemaker:DescribeEndpoint", endpoint),
                    Permission("sagemaker:UpdateEndpointWeightsAndCapacities", endpoint),
                ]
                if target is None:
                    role = {"iam:AWSServiceName": PRINCIPAL}
                    needed.append(Permission("iam:CreateServiceLinkedRole", self._linked_role(), role))
                if request.get("Tags"):
                    needed.append(Permission("application-autoscaling:TagResource", arn, keys))
            case "PutScalingPolicy" if request.get("PolicyType") == "TargetTrackingScaling":
                name = f"TargetTracking-{request.get('ResourceId')}-*"
                needed += [
                    Permission(f"cloudwatch:{what}", self._alarm_arn(name))
                    for what in ("PutMetricAlarm", "DescribeAlarms")
                ]
            case "DeleteScalingPolicy" | "DeregisterScalableTarget" if target:
                policies = [p for p in target.policies.values() if p.name == request.get("PolicyName", p.name)]
                needed += [
                    Permission("cloudwatch:DeleteAlarms", alarm["AlarmARN"]) for p in policies for alarm in p.alarms
                ]
        return needed

    # --- parts

    def _target(self, request: Document) -> Target:
        if (target := self._state.find(request)) is None:
            raise _not_found("scalable target", request)
        return target

    def _matching(self, request: Document) -> Iterator[Target]:
        for target in self._state:
            of = _of(target)
            if all(of[member] == request.get(member, of[member]) for member in of):
                yield target

    def _new_target(self, request: Document) -> Target:
        target = Target(
            resource_id=request["ResourceId"],
            dimension=request["ScalableDimension"],
            arn=self._target_arn(uuid.uuid4().hex),
            least=0,
            most=0,
            role_arn=self._linked_role(),
            suspended=dict.fromkeys(
                ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), False
            ),
            created=self._cloud.now(),
        )
        self._state.add(target)
        return target

    def _variant(self, resource_id: str) -> None:
        """Raises ValidationException if there is no such variant of an endpoint."""
        _, endpoint, _, variant = resource_id.split("/")
        try:
            found = self._cloud.client("sagemaker").describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            raise invalid(error.response["Error"]["Message"]) from error
        if variant not in [each["VariantName"] for each in found.get("ProductionVariants", [])]:
            raise invalid(f"Could not find variant {variant} of endpoint {endpoint}.")

    def _put_alarms(self, target: Target, policy: Policy) -> None:
        """Make the two alarms of a target tracking policy, or change them."""
        before = {alarm["AlarmName"].rsplit("-Alarm", 1)[1][:3]: alarm for alarm in policy.alarms}
        config = policy.config
        sides = [
            ("High", "GreaterThanThreshold", config["TargetValue"], MINUTES_ABOVE),
            ("Low", "LessThanThreshold", config["TargetValue"] * SCALE_IN_BELOW, MINUTES_BELOW),
        ]
        if config.get("DisableScaleIn"):
            sides.pop()
        policy.alarms = []
        for side, comparison, threshold, minutes in sides:
            known = before.pop(side[:3], None)
            name = known["AlarmName"] if known else f"TargetTracking-{target.resource_id}-Alarm{side}-{uuid.uuid4()}"
            self._cloud.client("cloudwatch").put_metric_alarm(
                AlarmName=name,
                AlarmDescription=f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy.arn}.",
                AlarmActions=[policy.arn],
                ComparisonOperator=comparison,
                Threshold=threshold,
                EvaluationPeriods=minutes,
                **_metric(target, config),
            )
            policy.alarms.append({"AlarmName": name, "AlarmARN": self._alarm_arn(name)})
        if unused := [alarm["AlarmName"] for alarm in before.values()]:
            self._cloud.client("cloudwatch").delete_alarms(AlarmNames=unused)

    def _delete_alarms(self, policy: Policy) -> None:
        """Those of target tracking only: the alarms of step scaling are their maker's."""
        if names := [alarm["AlarmName"] for alarm in policy.alarms]:
            self._cloud.client("cloudwatch").delete_alarms(AlarmNames=names)

    def _alarms_of(self, policy: Policy) -> list[Document]:
        """The alarms that call a step scaling policy."""
        pages = self._cloud.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm"])
        return [
            {"AlarmName": alarm["AlarmName"], "AlarmARN": alarm["AlarmArn"]}
            for found in pages
            for alarm in found["MetricAlarms"]
            if policy.arn in alarm.get("AlarmActions", [])
        ]

    def _tags(self, request: Document) -> dict[str, str]:
        arn = request["ResourceARN"]
        if arn not in {target.arn for target in self._state}:
            raise Problem("ResourceNotFoundException", f"No scalable target has the ARN {arn}.")
        return self._state.tags.setdefault(arn, {})

    # --- names

    def _target_arn(self, identity: str) -> str:
        return f"arn:aws:application-autoscaling:{self._cloud.region}:{self._cloud.account}:scalable-target/{identity}"

    def _arn(self, kind: str, target: Target, name: str) -> str:
        resource = f"resource/{NAMESPACE}/{target.resource_id}"
        where = f"{self._cloud.region}:{self._cloud.account}"
        return f"arn:aws:autoscaling:{where}:{kind}:{uuid.uuid4()}:{resource}:{name}"

    def _alarm_arn(self, name: str) -> str:
        return f"arn:aws:cloudwatch:{self._cloud.region}:{self._cloud.account}:alarm:{name}"

    def _linked_role(self) -> str:
        role = f"aws-service-role/{PRINCIPAL}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        return f"arn:aws:iam::{self._cloud.account}:role/{role}"


def _of(target: Target) -> Document:
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": target.resource_id,
        "ScalableDimension": target.dimension,
    }


def _supported(request: Document) -> None:
    parts = request["ResourceId"].split("/")
    variant = [part for part in parts if part] == parts and len(parts) == 4 and parts[::2] == ["endpoint", "variant"]
    if not variant or (request["ServiceNamespace"], request["ScalableDimension"]) != (NAMESPACE, DIMENSION):
        raise invalid("Unsupported service namespace, resource type or scalable dimension")


def _check_steps(config: Document | None) -> None:
    if not config or not config.get("StepAdjustments"):
        raise invalid("A step scaling policy needs a StepScalingPolicyConfiguration with StepAdjustments.")
    if "AdjustmentType" not in config:
        raise invalid("A step scaling policy needs an AdjustmentType.")
    infinity = float("inf")
    spans = sorted(
        (step.get("MetricIntervalLowerBound", -infinity), step.get("MetricIntervalUpperBound", infinity))
        for step in config["StepAdjustments"]
    )
    if any(low >= high for low, high in spans) or any(one[1] != next_[0] for one, next_ in pairwise(spans)):
        raise invalid("The intervals of step adjustments must follow one another, without gap and without overlap.")


def _check_tracking(config: Document | None) -> None:
    if not config:
        raise invalid("A target tracking policy needs a TargetTrackingScalingPolicyConfiguration.")
    if config["TargetValue"] <= 0:
        raise invalid("TargetValue must be larger than zero.")
    predefined, own = (config.get(f"{kind}MetricSpecification") for kind in ("Predefined", "Customized"))
    if (predefined is None) == (own is None):
        raise invalid("Specify exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification.")
    if predefined and predefined["PredefinedMetricType"] not in _METRICS:
        raise invalid(f"{predefined['PredefinedMetricType']} is not a metric of {DIMENSION}.")
    if own and not own.get("Metrics") and not {"MetricName", "Namespace", "Statistic"} <= set(own):
        raise invalid("CustomizedMetricSpecification needs MetricName, Namespace and Statistic, or Metrics.")


def _metric(target: Target, config: Document) -> dict[str, Any]:
    """What an alarm on a target tracking policy's metric watches, as PutMetricAlarm takes it."""
    if predefined := config.get("PredefinedMetricSpecification"):
        dimensions = {"EndpointName": target.endpoint, "VariantName": target.variant}
        listed = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        return {**_METRICS[predefined["PredefinedMetricType"]], "Dimensions": listed, "Period": 60}
    own = config["CustomizedMetricSpecification"]
    if not own.get("Metrics"):
        return {**own, "Period": 60}
    return {
        "Metrics": [
            {**query, "MetricStat": {**query["MetricStat"], "Period": 60}} if "MetricStat" in query else query
            for query in own["Metrics"]
        ]
    }


def _not_found(what: str, request: Document) -> Problem:
    return Problem(
        "ObjectNotFoundException",
        f"No {what} found for service namespace: {request['ServiceNamespace']}, resource ID: {request['ResourceId']}, "
        f"scalable dimension: {request['ScalableDimension']}",
    )


def _page(member: str, found: Iterable[Document], request: Document) -> Document:
    rows, token = page(list(found), request)
    return {member: rows, "NextToken": token}
