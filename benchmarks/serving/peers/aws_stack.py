"""AWS's scikit-learn serving stack from its public parts: `python -m … PORT WORKERS FOLDER NGINX`.

The library of that container (sagemaker-containers) brings the Flask application and nginx's configuration; this file
only starts nginx, and gunicorn with gevent, as the library's `_server.py` does, under paths that need no root, and
makes the application as the container's `serving.py` does. The model and inference.py are those of Noria's bundle.
"""

import collections
import collections.abc
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

# The public release of the library is older than Python 3.10, which took this name out of `collections`.
collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]

_application: Any = None


def main(environ: Any, start_response: Any) -> Any:
    """What gunicorn serves; the model is loaded with the first request, in each worker."""
    global _application  # noqa: PLW0603 - a process has one
    if _application is None:
        from sagemaker_containers.beta.framework import env, transformer, worker  # noqa: PLC0415 - reads /opt/ml

        served = env.ServingEnv()
        script = import_module(served.module_name)
        functions = {name: getattr(script, name) for name in ("model_fn", "input_fn", "predict_fn", "output_fn")}
        transform = transformer.Transformer(**functions)
        transform.initialize()
        _application = worker.Worker(transform_fn=transform.transform, module_name=served.module_name)
    return _application(environ, start_response)


def serve(port: int, workers: int, folder: Path, nginx: str) -> None:
    socket = folder / "gunicorn.sock"
    template = files("sagemaker_containers").joinpath("etc/nginx.conf.template").read_text(encoding="utf-8")
    values = {"NGINX_HTTP_PORT": f"127.0.0.1:{port}", "NGINX_PROXY_READ_TIMEOUT": "60"}
    config = re.sub(r"%(\w+)%", lambda match: values[match[1]], template)
    places = "".join(f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    for theirs, ours in {
        "/tmp/gunicorn.sock": str(socket),  # noqa: S108
        "/tmp/nginx.pid": f"{folder}/nginx.pid",  # noqa: S108
        "include /etc/nginx/mime.types;": places,
    }.items():
        config = config.replace(theirs, ours)
    (folder / "nginx.conf").write_text(config, encoding="utf-8")
    processes = [
        subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]),
        subprocess.Popen(
            [
                *(Path(sys.executable).with_name("gunicorn"), "--timeout", "60", "-k", "gevent"),
                *("--pythonpath", os.environ["SAGEMAKER_SUBMIT_DIRECTORY"]),
                *("-b", f"unix:{socket}", "--worker-connections", str(1000 * workers), "-w", str(workers)),
                *("--log-level", "info", "benchmarks.serving.peers.aws_stack:main"),
            ]
        ),
    ]
    for process in processes:
        process.wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
