"""Feature flags in AppConfig, as people see and change them.

A change is a new version of one hosted configuration and its deployment: to a growing share of the functions that read
it, watched by the front door's alarms, which bring the version before back. While one moves, no other begins.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import boto3

from noria.flags import Flags

if TYPE_CHECKING:
    from mypy_boto3_appconfig import AppConfigClient

MOVING = frozenset({"VALIDATING", "DEPLOYING", "BAKING", "ROLLING_BACK"})


class FlagsMovingError(RuntimeError):
    """A deployment of flags is under way: another cannot begin."""


class NothingBeforeError(RuntimeError):
    """There are no earlier flags to go back to."""


class RefusedFlagsError(ValueError):
    """AppConfig's own validator refused the flags."""


@dataclass(frozen=True, kw_only=True)
class FlagDeployment:
    """One deployment of flags: `percent` is the share of readers that has got them, `why` says why it went back.

    A list of deployments tells neither the description nor why.
    """

    number: int
    version: int
    state: str
    percent: float
    description: str = ""
    why: str | None = None

    @property
    def moving(self) -> bool:
        return self.state in MOVING


@dataclass(frozen=True, kw_only=True)
class FlagStore:
    """A model's flags, as a person sees and changes them."""

    application: str
    environment: str
    profile: str
    gradual: str
    at_once: str
    client: "AppConfigClient" = field(default_factory=lambda: boto3.client("appconfig"), repr=False)

    @classmethod
    def of(cls, outputs: Mapping[str, str]) -> Self:
        """From the outputs of a front-door stack, which say where a model's flags are."""
        return cls(
            application=outputs["FlagsApplication"],
            environment=outputs["FlagsEnvironment"],
            profile=outputs["FlagsProfile"],
            gradual=outputs["FlagsGradualStrategy"],
            at_once=outputs["FlagsAtOnceStrategy"],
        )

    def deployments(self) -> list[FlagDeployment]:
        """Newest first."""
        pages = self.client.get_paginator("list_deployments").paginate(**self._place)
        found = [
            FlagDeployment(
                number=item["DeploymentNumber"],
                version=int(item["ConfigurationVersion"]),
                state=item["State"],
                percent=float(item["PercentageComplete"]),
            )
            for page in pages
            for item in page["Items"]
        ]
        return sorted(found, key=lambda each: each.number, reverse=True)

    def deployment(self, number: int) -> FlagDeployment:
        found = self.client.get_deployment(**self._place, DeploymentNumber=number)
        back = {"ROLLBACK_STARTED", "REVERT_COMPLETED"}
        rollbacks = [event for event in found.get("EventLog", []) if event.get("EventType") in back]
        return FlagDeployment(
            number=number,
            version=int(found["ConfigurationVersion"]),
            state=found["State"],
            percent=float(found.get("PercentageComplete", 0.0)),
            description=found.get("Description", ""),
            why=rollbacks[0].get("Description") if rollbacks else None,
        )

    def flags(self, version: int) -> Flags:
        answer = self.client.get_hosted_configuration_version(**self._versions, VersionNumber=version)
        return Flags.model_validate_json(answer["Content"].read())

    def set(self, flags: Flags, *, reason: str) -> FlagDeployment:
        """Deploy new flags, gradually. Raises `FlagsMovingError` and `RefusedFlagsError`."""
        self._refuse_while_moving(self.deployments())
        version = self.client.create_hosted_configuration_version(
            **self._versions,
            Content=flags.model_dump_json(exclude_defaults=True).encode(),
            ContentType="application/json",
            Description=reason[:1024],
        )["VersionNumber"]
        return self._deploy(version, strategy=self.gradual, reason=reason)

    def roll_back(self, *, reason: str) -> FlagDeployment:
        """Bring back, at once, what held before the flags that go out or hold now. Raises `NothingBeforeError`.

        AppConfig reverts its newest deployment within 72 hours of its end, whatever its alarms say meanwhile; what is
        older is deployed anew. Source: AppConfig guide, `appconfig-deploying-reverting`.
        """
        deployments = self.deployments()
        newest = deployments[0]
        if newest.moving:
            return self._stop(newest)
        done = [each for each in deployments if each.state == "COMPLETE"]
        # Older, so that going back twice goes back further and not forth again.
        before = next((each for each in done if each.version < done[0].version), None)
        if before is None:
            raise NothingBeforeError("there are no flags before these")
        # A revert brings what was deployed just before: after an earlier way back, the flags that this one left.
        if newest.state == "COMPLETE" and done[1].version == before.version:
            with suppress(self.client.exceptions.BadRequestException):
                return self._stop(newest)
        return self._deploy(before.version, strategy=self.at_once, reason=reason)

    def forget(self) -> None:
        """Delete every version but the template's own, the first: AppConfig deletes no profile that has others."""
        deployments = self.deployments()
        if deployments and deployments[0].moving:
            self._stop(deployments[0])
        pages = self.client.get_paginator("list_hosted_configuration_versions").paginate(**self._versions)
        versions = sorted(item["VersionNumber"] for page in pages for item in page["Items"])
        for version in versions[1:]:
            self.client.delete_hosted_configuration_version(**self._versions, VersionNumber=version)

    def _stop(self, deployment: FlagDeployment) -> FlagDeployment:
        # Without AllowRevert one that bakes could not be stopped.
        self.client.stop_deployment(**self._place, DeploymentNumber=deployment.number, AllowRevert=True)
        return self.deployment(deployment.number)

    def _refuse_while_moving(self, deployments: list[FlagDeployment]) -> None:
        if deployments and (newest := deployments[0]).moving:
            raise FlagsMovingError(
                f"deployment {newest.number} of version {newest.version} is under way ({newest.percent:g} %)"
            )

    def _deploy(self, version: int, *, strategy: str, reason: str) -> FlagDeployment:
        try:
            started = self.client.start_deployment(
                **self._place,
                ConfigurationProfileId=self.profile,
                ConfigurationVersion=str(version),
                DeploymentStrategyId=strategy,
                Description=reason[:1024],
            )
        except self.client.exceptions.ConflictException as error:
            raise FlagsMovingError(str(error)) from error
        except self.client.exceptions.BadRequestException as error:
            raise RefusedFlagsError(str(error)) from error
        return self.deployment(started["DeploymentNumber"])

    @property
    def _versions(self) -> Any:
        return {"ApplicationId": self.application, "ConfigurationProfileId": self.profile}

    @property
    def _place(self) -> Any:
        return {"ApplicationId": self.application, "EnvironmentId": self.environment}
