"""`make fuzz`: atheris feeds every door what it finds to reach new code, for so many seconds each, and keeps findings.

A finding is written to .noria/fuzz/<door>/crash-…; give it back to the door with `python -m tests.fuzz <door> <file>`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import atheris
from rich.console import Console

FOLDER = Path(".noria/fuzz")


def main() -> None:
    if len(sys.argv) > 1:
        _fuzz(sys.argv[1], sys.argv[2:])
        return
    seconds = os.environ.get("SECONDS_EACH", "60")
    told, broken = Console(), []
    for name in _names():
        told.print(f"· {name}: {seconds} s")
        corpus, crashes = FOLDER / _slug(name) / "corpus", FOLDER / _slug(name)
        corpus.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20", "-max_len=20000"]
        ran = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name, str(corpus), *limits, f"-artifact_prefix={crashes}/"],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        tried = re.findall(r"(?:#|stat::number_of_executed_units: )(\d+)", ran.stderr)
        told.print(f"  {int(tried[-1]) if tried else 0:,} inputs")
        if ran.returncode:
            broken.append(name)
            (FOLDER / _slug(name) / "found.txt").write_text(ran.stderr)
            told.print("\n".join(ran.stderr.splitlines()[-25:]), markup=False)
    if broken:
        sys.exit(f"Broken: {', '.join(broken)}. What broke each lies in {FOLDER}/.")
    told.print("Nothing broke.")


def _names() -> list[str]:
    from tests.fuzz.doors import doors  # noqa: PLC0415 - after atheris, where a door is fuzzed

    return [door.name for door in doors()]


def _fuzz(name: str, arguments: list[str]) -> None:
    with atheris.instrument_imports(include=["noria", "pipelines"]):
        from tests.fuzz.doors import doors  # noqa: PLC0415 - what is imported here is watched
    door = next(door for door in doors() if door.name == name)
    if arguments and (corpus := Path(arguments[0])).is_dir():
        for number, seed in enumerate(door.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)

    def enter(data: bytes) -> None:
        door.enter(data)

    atheris.Setup([sys.argv[0], *arguments], enter)
    atheris.Fuzz()


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())


if __name__ == "__main__":
    main()
