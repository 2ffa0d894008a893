"""The process of a local cloud: `python -m local.server`, started by `local.cloud`, which prepares its environment."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from local import embedded_metrics, mail, ministack, privileges, queues
from local.archives import ArchiveType
from local.athena import Engine
from local.autoscaling import service as autoscaling
from local.cloud import MAIL
from local.composite_alarms import CompositeAlarmType
from local.faults.injection import Injection
from local.flow_logs import FlowLogType
from local.http_apis import HttpApis
from local.sagemaker import service as sagemaker
from local.sagemaker.cloud import Cloud


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--time-scale", type=float, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    options = parser.parse_args()

    cloud = Cloud(
        account=os.environ["MINISTACK_ACCOUNT_ID"],
        region=os.environ["MINISTACK_REGION"],
        root=options.root,
        python=options.python,
        endpoint=f"https://localhost:{options.port}",
        certificate=options.certificate,
        time_scale=options.time_scale,
    )
    sagemaker.install(cloud, scaled=autoscaling.install(cloud))
    ministack.register_resource(ArchiveType(cloud))
    ministack.register_resource(FlowLogType(cloud))
    ministack.register_resource(CompositeAlarmType(cloud))
    ministack.answer_queries_with(Engine())
    HttpApis().start()
    privileges.install()
    queues.install(cloud)
    embedded_metrics.install()
    mail.install(options.root / MAIL)
    Injection().install()
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        ministack.serve(port=options.port, certificate=options.certificate, key=options.key)
    finally:
        cloud.close()
        _end_group()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _end_group() -> None:
    """End what MiniStack started, such as its Lambda workers: they share this process's group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
