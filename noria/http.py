"""A request as API Gateway hands it to a function, in payload format 2.0.

Shape: API Gateway guide, `http-api-develop-integrations-lambda`.
"""

import base64
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from noria.flags import Caller

ID_CLAIMS = ("sub", "client_id")


class _Part(BaseModel):
    # What is wrong with a request may be said, but not what it holds.
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


class Iam(_Part):
    """Who signed the request, as IAM found. Source: API Gateway guide, `http-api-develop-integrations-lambda`."""

    account_id: str | None = None
    user_arn: str | None = None


class Jwt(_Part):
    claims: dict[str, str] = Field(default_factory=dict)


class Authorizer(_Part):
    iam: Iam | None = None
    jwt: Jwt | None = None


class Context(_Part):
    authorizer: Authorizer = Authorizer()
    domain_name: str = ""


class HttpRequest(_Part):
    """`route_key` is `POST /predict` and the like; header names are in lower case."""

    route_key: str
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    is_base64_encoded: bool = False
    request_context: Context
    path_parameters: dict[str, str] | None = None

    @classmethod
    def parse(cls, event: dict[str, Any]) -> "HttpRequest":
        return cls.model_validate(event)

    @property
    def content(self) -> bytes:
        text = self.body or ""
        return base64.b64decode(text) if self.is_base64_encoded else text.encode()

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def signer(self) -> str | None:
        """The ARN of the IAM identity that signed the request; None where the event has less than IAM tells of one."""
        iam = self.request_context.authorizer.iam
        if iam is None or not iam.user_arn or not iam.account_id:
            return None
        return iam.user_arn if iam.user_arn.split(":")[4:5] == [iam.account_id] else None

    @property
    def caller(self) -> Caller:
        """Who asks, as the authoriser proved it: an IAM caller's ARN, or a token's subject."""
        authorizer = self.request_context.authorizer
        if authorizer.iam and authorizer.iam.user_arn:
            return Caller(id=authorizer.iam.user_arn, headers=self.headers)
        claims = authorizer.jwt.claims if authorizer.jwt else {}
        who = next((claims[name] for name in ID_CLAIMS if name in claims), "")
        return Caller(id=who, headers=self.headers, claims={name: _values(value) for name, value in claims.items()})


def _values(claim: str) -> list[str]:
    """A claim's values: API Gateway writes a list as `[a b]`."""
    return claim[1:-1].split() if claim.startswith("[") and claim.endswith("]") else [claim]
