"""What SQS tells CloudWatch of its queues once a minute, and MiniStack does not.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
"""

import logging
import threading

from local import ministack
from local.ministack import Queue
from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.queues")

NAMESPACE = "AWS/SQS"
MINUTE = 60


def install(cloud: Cloud) -> None:
    """Begin to publish; and let what functions failed on wait for the cloud's minutes."""
    ministack.scale_waiting(cloud.time_scale)
    threading.Thread(target=_publish, args=(cloud,), name="queues", daemon=True).start()


def metrics(queue: Queue) -> dict[str, tuple[float, str]]:
    """Values and units by name."""
    return {
        "ApproximateNumberOfMessagesVisible": (queue.visible, "Count"),
        "ApproximateNumberOfMessagesNotVisible": (queue.not_visible, "Count"),
        "ApproximateNumberOfMessagesDelayed": (queue.delayed, "Count"),
        "ApproximateAgeOfOldestMessage": (round(queue.oldest), "Seconds"),
    }


def _publish(cloud: Cloud) -> None:
    while cloud.sleep(MINUTE):
        if not ministack.is_running():
            continue
        try:
            ministack.on_loop(_publish_once, account=cloud.account, region=cloud.region)
        except Exception:
            logger.exception("The queues' metrics could not be published")


def _publish_once() -> None:
    for queue in ministack.queues():
        for name, (value, unit) in metrics(queue).items():
            ministack.put_metric(NAMESPACE, name, {float(value): 1}, unit=unit, dimensions={"QueueName": queue.name})
