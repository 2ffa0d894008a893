"""Headless Chromium, driven over a pipe: no port, no driver, no package but the browser itself.

The Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/) as JSON messages that each end in a
zero byte, on file descriptors 3 (to the browser) and 4 (from it).
"""

import json
import os
import platform
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

UNPACKED = Path(__file__).parents[2] / ".noria" / "chromium"
"""By `make test`, from the npm package @sparticuz/chromium: a build for Linux on x86-64, with what it needs."""

_PATIENCE = 30.0  # seconds for any one answer
_FLAGS = (
    "--headless",
    "--no-sandbox",  # which needs privileges that containers lack; only pages of ours are opened
    "--no-zygote",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_FONTS = "<fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>"


def binary() -> Path:
    """`NORIA_CHROMIUM`, or the one that was unpacked. Where there is neither, the tests fail: nothing else looks."""
    if named := os.environ.get("NORIA_CHROMIUM"):
        return Path(named)
    found = UNPACKED / "chromium"
    if not found.exists() or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise FileNotFoundError(
            f"no Chromium for {platform.system()} on {platform.machine()}: run `make test`, which unpacks one on Linux "
            "x86-64, or name an installed Chromium or Chrome in NORIA_CHROMIUM"
        )
    return found


class Chromium:
    """One browser with one tab. `problems` is what the console, the log and uncaught errors said of the page that is
    open, `requests` the addresses that it asked for, its own first."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, read, b""
        self._sent = 0
        self._session: str | None = None
        self._loaded = False
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, page: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> None:
        """Load a file as a screen of that width shows it."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.problems, self.requests, self._loaded = [], [], False
        self._call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._hear(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._sent:
            self._hear(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _hear(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(told))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 2**20) if ready else b""
            if not chunk:
                raise RuntimeError("Chromium has ended" if ready else f"Chromium is silent for {_PATIENCE:g} s")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        parsed: dict[str, Any] = json.loads(message)
        return parsed


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser that knows nothing of earlier ones, and is gone afterwards."""
    command = binary()
    with tempfile.TemporaryDirectory(prefix="noria-chromium-", ignore_cleanup_errors=True) as profile:
        fonts = Path(profile, "fonts.conf")
        fonts.write_text(_FONTS.format(fonts=UNPACKED / "fonts", cache=f"{profile}/fonts"), encoding="utf-8")
        own = command.parent == UNPACKED
        libraries = {"LD_LIBRARY_PATH": str(UNPACKED / "al2023" / "lib"), "FONTCONFIG_FILE": str(fonts)} if own else {}
        theirs, ours = os.pipe()
        heard, said = os.pipe()
        # Python hands on descriptors by their own numbers; bash gives them those that Chromium listens to.
        shell = f'exec "$0" "$@" 3<&{theirs} 4>&{said}'
        process = subprocess.Popen(
            ["bash", "-c", shell, str(command), *_FLAGS, f"--user-data-dir={profile}/profile"],
            pass_fds=(theirs, said),
            env=os.environ | libraries,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(said)
        try:
            yield Chromium(ours, heard)
        finally:
            os.close(ours)  # Chromium ends when nobody can tell it anything any more
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(heard)
