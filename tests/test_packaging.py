"""What is installed: every data file is in the wheel, and a Space can meet the requirements."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from melbo import __version__

ROOT = Path(__file__).parents[1]
SCRATCH = shutil.ignore_patterns("__pycache__", ".*")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name: str) -> dict[str, str]:
    """Package -> version specifier, of a requirements file."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [re.fullmatch(r"([A-Za-z0-9-]+)(.*)", line) for line in lines if line and not line.startswith("-")]
    assert all(found), lines
    return {match[1].lower(): match[2] for match in found if match}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that nothing is written beside the sources."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "melbo", folder / "melbo", ignore=SCRATCH)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1])


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    found = [path.relative_to(ROOT) for path in (ROOT / "melbo").rglob("*") if path.is_file()]
    sources = {p.as_posix() for p in found if not any(part == "__pycache__" or part[0] == "." for part in p.parts)}
    packed = {name for name in wheel.namelist() if not name.startswith(f"melbo-{__version__}.dist-info/")}
    assert {"melbo/py.typed", "melbo/organism/corpus/chats.json"} < sources
    assert packed == sources


def test_the_wheel_says_what_it_needs_and_how_it_starts(wheel: zipfile.ZipFile) -> None:
    info = f"melbo-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    needed = re.findall(r"^Requires-Dist: ([A-Za-z0-9-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert set(needed) == set(requirements("requirements.txt"))
    assert "Requires-Python: >=3.11\n" in metadata
    assert "melbo = melbo.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_a_space_can_bring_its_own_torch() -> None:
    needed = requirements("requirements.txt")
    assert needed["torch"] == ">=2.8"
    assert "torchvision" not in needed | requirements("requirements-dev.txt")


def test_every_requirement_has_a_tested_version_and_nothing_else_has() -> None:
    tested = requirements("constraints.txt")
    assert set(tested) == set(requirements("requirements.txt")) | set(requirements("requirements-dev.txt"))
    assert all(re.fullmatch(r"==[0-9.]+", version) for version in tested.values())


def test_the_dev_extra_is_the_dev_requirements() -> None:
    extra = {line.strip() for line in PROJECT["optional-dependencies"]["dev"]}
    assert extra == {name + version for name, version in requirements("requirements-dev.txt").items()}


@pytest.mark.parametrize(
    "name", [*(f"requirements{s}.txt" for s in ("", "-dev")), "constraints.txt", "Makefile", ".ci/run"]
)
def test_set_up_names_no_host(name: str) -> None:
    assert not re.search(r"https?://|\bwww\.", (ROOT / name).read_text(encoding="utf-8"))
