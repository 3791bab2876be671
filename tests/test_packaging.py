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
from melbo.publishing.space.write import requirements

ROOT = Path(__file__).parents[1]
SCRATCH = shutil.ignore_patterns("__pycache__", ".*")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIME = [
    *PROJECT["dependencies"],
    *(line for name, lines in EXTRAS.items() if name not in ("all", "dev") for line in lines),
]


def versions(lines: list[str]) -> dict[str, str]:
    """Package -> version specifier."""
    found = [re.fullmatch(r"([A-Za-z0-9-]+)(?:\[\w+\])?(.*)", line) for line in lines]
    assert all(found), lines
    return {match[1].lower(): match[2] for match in found if match}


def read(name: str) -> dict[str, str]:
    """`versions` of a requirements file."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return versions([line for line in lines if line])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that nothing is written beside the sources."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "melbo", folder / "melbo", ignore=SCRATCH)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    found = [path.relative_to(ROOT) for path in (ROOT / "melbo").rglob("*") if path.is_file()]
    sources = {p.as_posix() for p in found if not any(part == "__pycache__" or part[0] == "." for part in p.parts)}
    packed = {name for name in wheel.namelist() if not name.startswith(f"melbo-{__version__}.dist-info/")}
    assert {"melbo/py.typed", "melbo/organism/corpus/chats.json"} < sources
    assert packed == sources


@pytest.mark.slow
def test_the_wheel_says_what_it_needs_and_how_it_starts(wheel: zipfile.ZipFile) -> None:
    info = f"melbo-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    needed = re.findall(r"^Requires-Dist: ([A-Za-z0-9-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert set(needed) == set(versions(PROJECT["dependencies"]))
    assert set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE)) == set(EXTRAS)
    assert "Requires-Python: >=3.11\n" in metadata
    assert "melbo = melbo.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_a_space_installs_all_that_is_used_at_run_time_and_can_bring_its_own_torch(
    wheel: zipfile.ZipFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read("requirements.txt") == versions(RUNTIME)
    assert read("requirements.txt")["torch"] == ">=2.8"
    assert "torchvision" not in {**versions(RUNTIME), **versions(EXTRAS["dev"])}
    assert sorted(re.findall(r"\w+", EXTRAS["all"][0])[1:]) == sorted(set(EXTRAS) - {"all", "dev"})
    wheel.extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # its metadata, before that of the installed package
    assert set(versions(requirements())) == set(versions(RUNTIME))


def test_every_requirement_has_a_tested_version_and_nothing_else_has() -> None:
    tested = read("constraints.txt")
    assert set(tested) == set(versions(RUNTIME + EXTRAS["dev"])) - {"melbo"}
    assert all(re.fullmatch(r"==[0-9.]+", version) for version in tested.values())


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "Makefile", ".ci/run"])
def test_set_up_names_no_host(name: str) -> None:
    assert not re.search(r"https?://|\bwww\.", (ROOT / name).read_text(encoding="utf-8"))
