"""Mail that topics send to people: here, a file each, which any mail program opens and `cat` shows."""

from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import format_datetime
from itertools import count
from pathlib import Path

from local import ministack


def install(folder: Path) -> None:
    numbers = count(1)

    def deliver(address: str, subject: str, text: str) -> None:
        at = datetime.now(UTC)
        folder.mkdir(exist_ok=True)
        path = folder / f"{at:%Y%m%dT%H%M%SZ}-{next(numbers):05}.eml"
        path.write_bytes(mail(address, subject, text, at=at))

    ministack.on_mail(deliver)


def mail(address: str, subject: str, text: str, *, at: datetime) -> bytes:
    """As SNS sends it, but for its links. A subject has no line breaks: SNS refuses others."""
    message = EmailMessage(policy=SMTPUTF8)
    message["From"] = "AWS Notifications <no-reply@sns.amazonaws.com>"
    message["To"] = address
    message["Date"] = format_datetime(at)
    message["Subject"] = subject
    message.set_content(text, cte="8bit")
    return message.as_bytes()
