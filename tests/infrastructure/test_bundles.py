"""What functions are made of: each must import with its own bundle and its own layers, and nothing else.

The local bundles are imported. Those for AWS are of another machine and another Python, so they are read instead: every
import of ours, every requirement of a package, and every binary must find its counterpart.
"""

import ast
import os
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Literal

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stacks import bundles
from stacks.settings import Target
from tests.infrastructure.assembly import REPOSITORY, Assembly

UNZIPPED_LIMIT = 250 * 1024 * 1024
"""Bytes of a function with its layers. Source: Lambda guide, `gettingstarted-limits`."""

AMAZON_LINUX_GLIBC = (2, 34)  # Amazon Linux 2023, which Lambda's python3.13 runs on
ELF_MACHINES = {"x86_64": 0x3E, "aarch64": 0xB7, "arm64": 0xB7}

Layer = Literal["runtime", "data"]


@pytest.fixture(scope="session")
def layers(local: Assembly) -> Mapping[str, tuple[str, ...]]:
    """The layers of each function, by the names of both; the models, which hold no code, left out."""
    named: dict[str, tuple[str, ...]] = {bundles.IMPORT_PACKAGE: ("runtime",)}  # which other settings deploy
    for stack in local.templates.values():
        for function in stack.of("AWS::Lambda::Function"):
            folder = function.properties["Handler"].split(".")[0]
            found = [stack.target(layer).properties["LayerName"] for layer in function.properties["Layers"]]
            named[folder] = tuple(sorted(name.rsplit("-", 1)[-1] for name in found if "models" not in name))
    return named


def layer(name: str, target: Target) -> Path:
    return {"runtime": bundles.runtime, "data": bundles.data}[name](target)


FUNCTIONS = tuple(name for name in bundles.functions() if name != bundles.TRACK_TRAINING)
"""All but the one that has a layer of its own, which tests/tracking holds to it."""


@pytest.fixture(params=FUNCTIONS)
def reaction(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# --- local: import them


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The local layers and functions, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ("runtime", "data"):
        zipfile.ZipFile(layer(name, "local")).extractall(folder / name)
    for name in FUNCTIONS:
        zipfile.ZipFile(bundles.function(name, "local")).extractall(folder / name)
    return folder


IMPORT = """
import sys
sys.path[:0] = sys.argv[2:]
handler = __import__(f"{sys.argv[1]}.handler", fromlist=["handler"]).handler
assert callable(handler)
strangers = [m.__file__ for m in sys.modules.values() if "site-packages" in (getattr(m, "__file__", None) or "")]
assert not strangers, strangers
"""


def test_a_handler_imports_with_nothing_but_its_bundle_and_its_layers(
    reaction: str, layers: Mapping[str, tuple[str, ...]], unpacked: Path
) -> None:
    path = [str(unpacked / reaction), *(str(unpacked / name / "python") for name in layers[reaction])]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT, reaction, *path],
        cwd=unpacked,
        env={"PATH": os.environ["PATH"]},  # nor credentials, a region, or a variable of ours
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


# --- AWS: read them


class Contents:
    """What several zip files hold under the folders from which Python imports."""

    def __init__(self, function: Path, layers: list[Path]) -> None:
        self.bundles = [zipfile.ZipFile(path) for path in (function, *layers)]
        self._at: dict[str, tuple[zipfile.ZipFile, str]] = {}
        for bundle in self.bundles:
            for name in bundle.namelist():
                self._at.setdefault(name.removeprefix("python/"), (bundle, name))

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def names(self) -> Iterator[str]:
        return iter(self._at)

    def read(self, name: str) -> bytes:
        bundle, entry = self._at[name]
        return bundle.read(entry)

    def module(self, name: str) -> str | None:
        """The file of a module of Python source."""
        path = name.replace(".", "/")
        return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in self), None)

    @property
    def packages(self) -> set[str]:
        """What `import` finds here: folders and files at the top."""
        return {PurePosixPath(name).parts[0].split(".")[0] for name in self._at}

    @property
    def unzipped(self) -> int:
        return sum(entry.file_size for bundle in self.bundles for entry in bundle.infolist())

    def distributions(self) -> dict[str, str]:
        """Version of each installed package by its name."""
        found = (re.fullmatch(r"(.+?)-([^-]+)\.dist-info/METADATA", name) for name in self._at)
        return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.fixture(scope="session")
def on_aws(layers: Mapping[str, tuple[str, ...]]) -> Mapping[str, Contents]:
    return {
        name: Contents(bundles.function(name, "aws"), [layer(each, "aws") for each in layers[name]])
        for name in FUNCTIONS
    }


def imports(source: bytes, package: str) -> Iterator[str]:
    """Modules that a source imports when it runs, at its top or later; what only type checkers import is left out."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                waiting += node.orelse
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, f"{package} imports relatively"
                assert node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case _:
                waiting += ast.iter_child_nodes(node)


def closure(reaction: str, contents: Contents) -> set[str]:
    """Files of ours that a handler imports, directly or not; fails for an import that nothing answers."""
    known = contents.packages | set(sys.stdlib_module_names)
    waiting, seen = [f"{reaction}.handler"], set[str]()
    while waiting:
        module = waiting.pop()
        # `from a import b` names a module a.b, or something in the module a.
        file = contents.module(module) or contents.module(module.rpartition(".")[0])
        if module.split(".")[0] not in {"noria", reaction}:
            assert module.split(".")[0] in known, f"{reaction} needs {module}"
            continue
        assert file, f"{reaction} needs {module}"
        if file not in seen:
            seen.add(file)
            waiting += imports(contents.read(file), module)
    return seen


def test_on_aws_every_import_of_ours_is_in_the_bundle_a_layer_or_the_standard_library(
    reaction: str, on_aws: Mapping[str, Contents]
) -> None:
    assert any(file.startswith("noria/aws/") for file in closure(reaction, on_aws[reaction]))


def test_on_aws_boto3_knows_every_service_that_is_called(reaction: str, on_aws: Mapping[str, Contents]) -> None:
    """The layer leaves out the services that nobody calls."""
    contents = on_aws[reaction]
    sources = (contents.read(file).decode() for file in closure(reaction, contents))
    called = {service for source in sources for service in re.findall(r'boto3\.client\("([a-z0-9-]+)"', source)}
    assert called
    kept = {PurePosixPath(name).parts[2] for name in contents.names() if name.startswith("botocore/data/")}
    assert called <= kept


def test_on_aws_every_package_has_what_it_requires_in_the_version_it_requires(
    reaction: str, on_aws: Mapping[str, Contents]
) -> None:
    contents = on_aws[reaction]
    installed = contents.distributions()
    assert "boto3" in installed, "functions have their own boto3: the runtime's is of any age"
    environment = {
        "python_version": bundles.AWS_PYTHON,
        "python_full_version": f"{bundles.AWS_PYTHON}.0",
        "platform_machine": "aarch64",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for metadata in (name for name in contents.names() if name.endswith(".dist-info/METADATA")):
        described = Parser().parsestr(contents.read(metadata).decode())
        for line in described.get_all("Requires-Dist", []):
            required = Requirement(line)
            if required.marker is None or required.marker.evaluate(environment):
                name = canonicalize_name(required.name)
                assert name in installed, f"{metadata} requires {line}"
                assert required.specifier.contains(installed[name], prereleases=True), f"{metadata} requires {line}"


def test_on_aws_every_wheel_is_for_the_python_and_the_system_of_the_function(
    reaction: str, prod: Assembly, on_aws: Mapping[str, Contents]
) -> None:
    functions = prod.all("AWS::Lambda::Function")
    mine = [each for each in functions if each.properties["Handler"] == f"{reaction}.handler.handler"]
    assert len(mine) == (reaction != bundles.IMPORT_PACKAGE)
    for function in mine:
        assert function.properties["Runtime"] == f"python{bundles.AWS_PYTHON}"
        assert function.properties["Architectures"] == ["arm64"]
    contents = on_aws[reaction]
    wheels = [name for name in contents.names() if name.endswith(".dist-info/WHEEL")]
    assert wheels
    for wheel in wheels:
        tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)$", contents.read(wheel).decode(), re.MULTILINE)
        assert any(runs_on_lambda(*tag) for tag in tags), (wheel, tags)


def runs_on_lambda(python: str, abi: str, system: str) -> bool:
    version = bundles.AWS_PYTHON.replace(".", "")
    if (abi, system) == ("none", "any"):
        return python.startswith("py") and python.endswith("3")
    old = {"manylinux2014": "manylinux_2_17"}
    for name, same in old.items():
        system = system.replace(name, same)
    found = re.fullmatch(r"manylinux_(\d+)_(\d+)_aarch64", system)
    fits = abi in {f"cp{version}", "abi3"} and python.startswith("cp3")
    return fits and found is not None and (int(found[1]), int(found[2])) <= AMAZON_LINUX_GLIBC


@pytest.mark.parametrize(("target", "machine"), [("aws", "aarch64"), ("local", platform.machine())])
@pytest.mark.parametrize("name", ["runtime", "data"])
def test_every_binary_is_of_its_targets_machine(name: str, target: Target, machine: str) -> None:
    if platform.system() != "Linux" and target == "local":
        pytest.skip("binaries of this system are no ELF files")
    with zipfile.ZipFile(layer(name, target)) as bundle:
        binaries = [entry for entry in bundle.namelist() if re.search(r"\.so(\.\d+)*$", entry)]
        assert binaries
        for binary in binaries:
            with bundle.open(binary) as file:
                head = file.read(20)
            assert head[:4] == b"\x7fELF", binary
            assert int.from_bytes(head[18:20], "little") == ELF_MACHINES[machine], binary
            if named := re.search(r"\.cpython-(\d+)-", binary):
                python = bundles.AWS_PYTHON if target == "aws" else "{}.{}".format(*sys.version_info)
                assert named[1] == python.replace(".", ""), binary


def test_on_aws_a_function_with_its_layers_is_far_from_the_limit(reaction: str, on_aws: Mapping[str, Contents]) -> None:
    assert 0 < on_aws[reaction].unzipped < 0.8 * UNZIPPED_LIMIT


def test_a_function_holds_its_own_code_and_not_that_of_another(reaction: str, on_aws: Mapping[str, Contents]) -> None:
    own, *_ = on_aws[reaction].bundles
    assert {PurePosixPath(name).parts[0] for name in own.namelist()} == {reaction}


def test_no_function_carries_the_command(on_aws: Mapping[str, Contents], reaction: str) -> None:
    assert not [name for name in on_aws[reaction].names() if name.startswith(("noria/cli/", "typer", "rich"))]


def test_every_file_is_readable_by_whoever_runs_the_function(on_aws: Mapping[str, Contents], reaction: str) -> None:
    for bundle in on_aws[reaction].bundles:
        assert all(entry.external_attr >> 16 & 0o444 == 0o444 for entry in bundle.infolist())


def test_the_same_sources_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    for number in ("1", "2"):
        monkeypatch.setattr(bundles, "BUILD", tmp_path / number)
        built.append(bundles.function("deploy_model", "local").read_bytes())
    assert built[0] == built[1]
    assert bundles.BUILD != REPOSITORY / ".noria" / "build"
