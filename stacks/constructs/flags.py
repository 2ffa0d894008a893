"""Feature flags in AppConfig: the application, how a change of them spreads, and what brings it back."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from aws_cdk import Stack
from aws_cdk import aws_appconfig as appconfig
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from constructs import Construct

from noria.flags import json_schema
from stacks.constructs.permissions import Grant, allow

STEPS = 5
STEP = timedelta(minutes=2)
"""A change reaches a fifth of the readers more every two minutes."""

MINUTE = timedelta(minutes=1)


class Flags(Construct):
    """`name` is the application's; `bake` is how long the alarms still bring a change back that all readers have."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        name: str,
        env: str,
        alarms: Sequence[cloudwatch.Alarm],
        bake: timedelta,
    ) -> None:
        super().__init__(scope, id_)
        self._name = name
        self.application = appconfig.CfnApplication(self, "Application", name=name).ref
        self.environment = self._environment(env, alarms)
        self.profile = self._profile()
        self.gradual = self._strategy("Gradual", duration=STEPS * STEP, share=100 / STEPS, bake=bake)
        self.at_once = self._strategy("AtOnce", duration=timedelta(0), share=100, bake=timedelta(0))
        self._first()

    @property
    def outputs(self) -> Mapping[str, str]:
        """Where they are, for `noria.aws.flags.FlagStore`."""
        return {
            "FlagsApplication": self.application,
            "FlagsEnvironment": self.environment,
            "FlagsProfile": self.profile,
            "FlagsGradualStrategy": self.gradual,
            "FlagsAtOnceStrategy": self.at_once,
        }

    @property
    def arn(self) -> str:
        """What a reader must be allowed to get."""
        return Stack.of(self).format_arn(
            service="appconfig",
            resource="application",
            resource_name=f"{self.application}/environment/{self.environment}/configuration/{self.profile}",
        )

    def _environment(self, env: str, alarms: Sequence[cloudwatch.Alarm]) -> str:
        role = iam.Role(
            self,
            "Monitor",
            assumed_by=iam.ServicePrincipal(
                "appconfig.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
            ),
        )
        allow(
            role,
            Grant(
                actions=["cloudwatch:DescribeAlarms"],
                resources=["*"],
                because="CloudWatch doesn't narrow DescribeAlarms to single alarms.",
            ),
        )
        environment = appconfig.CfnEnvironment(
            self,
            "Environment",
            application_id=self.application,
            name=env,
            monitors=[
                appconfig.CfnEnvironment.MonitorsProperty(alarm_arn=alarm.alarm_arn, alarm_role_arn=role.role_arn)
                for alarm in alarms
            ],
            deletion_protection_check="BYPASS",  # what protects from deletion is the stack
        )
        environment.node.add_dependency(role)
        return environment.ref

    def _profile(self) -> str:
        return appconfig.CfnConfigurationProfile(
            self,
            "Profile",
            application_id=self.application,
            name="flags",
            location_uri="hosted",
            type="AWS.Freeform",
            validators=[
                appconfig.CfnConfigurationProfile.ValidatorsProperty(
                    type="JSON_SCHEMA", content=json.dumps(json_schema())
                )
            ],
            deletion_protection_check="BYPASS",
        ).ref

    def _strategy(self, what: str, *, duration: timedelta, share: float, bake: timedelta) -> str:
        return appconfig.CfnDeploymentStrategy(
            self,
            what,
            name=f"{self._name}-{what.lower()}",
            deployment_duration_in_minutes=duration // MINUTE,
            growth_type="LINEAR",
            growth_factor=share,
            final_bake_time_in_minutes=bake // MINUTE,
            replicate_to="NONE",
        ).ref

    def _first(self) -> None:
        """Flags without a rule. Nothing here may change with a later template: it would deploy them once more."""
        version = appconfig.CfnHostedConfigurationVersion(
            self,
            "First",
            application_id=self.application,
            configuration_profile_id=self.profile,
            content="{}",
            content_type="application/json",
            description="Without a rule: the endpoint's weights decide",
        )
        deployment = appconfig.CfnDeployment(
            self,
            "FirstDeployment",
            application_id=self.application,
            environment_id=self.environment,
            configuration_profile_id=self.profile,
            configuration_version=version.ref,
            deployment_strategy_id=self.at_once,
        )
        deployment.add_property_deletion_override("Tags")  # the owner's name, say
