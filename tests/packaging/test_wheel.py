"""The built wheel: what it holds, and that it works in a fresh environment outside any checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import workbench
from tests.support.paths import ROOT

DATA = ("organism", "language_organism", "language_personas")
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="no checkout to build from")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without a network as `pip wheel` would."""
    folder = tmp_path_factory.mktemp("dist")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return folder / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def tracked(folder: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(names: set[str]):
    package, data = tracked("workbench"), {name for part in DATA for name in tracked(f"data/{part}")}
    assert len(package) > 200 and len(data) > 10
    expected = package | {name.replace("data/", "workbench/_data/", 1) for name in data}
    assert {name for name in names if ".dist-info/" not in name} >= expected
    left = {name for name in names - expected if ".dist-info/" not in name}
    assert not {name for name in left if not name.startswith("workbench/")}
    assert "workbench/py.typed" in names


def test_the_metadata_names_version_licence_extras_and_pythons(wheel: Path, names: set[str]):
    file = next(name for name in names if name.endswith(".dist-info/METADATA"))
    about = message_from_string(zipfile.ZipFile(wheel).read(file).decode())
    assert about["Version"] == workbench.__version__
    assert about["License-Expression"] == "MIT" and about["Requires-Python"] == "<3.14,>=3.11"
    pythons = {line.rpartition(" ")[2] for line in about.get_all("Classifier") if "Python :: 3." in line}
    assert pythons == {"3.11", "3.12", "3.13"}
    assert set(about.get_all("Provides-Extra")) == {
        "notebook",
        "sweep",
        "lora",
        "gepa",
        "inspect",
        "dev",
        "docs",
        "all",
    }
    torch = next(line for line in about.get_all("Requires-Dist") if line.startswith("torch"))
    assert "==" not in torch


def test_an_unpacked_wheel_finds_its_own_data(wheel: Path, tmp_path: Path):
    place = tmp_path / "a path with spaces"
    zipfile.ZipFile(wheel).extractall(place)
    code = (
        "from workbench.models.model_sources import data_directory, find_source\n"
        "from workbench.sae.sae_loading import find_sae\n"
        "print(find_source('organism').directory)\n"
        "print(find_sae('organism').directory)\n"
        "print(data_directory('language_personas'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    root = place / "workbench" / "_data"
    assert done.stdout.splitlines()[-3:] == [
        str(root / part) for part in ("organism/model", "organism/sae", "language_personas")
    ]


def test_the_constraints_are_inside_the_declared_ranges():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert any(line.startswith("torch==") for line in pins)
    for pin in map(Requirement, pins):
        version = re.fullmatch(r"==(\S+)", str(pin.specifier))
        assert version is not None and version[1] in declared[pin.name]


def test_the_citation_and_the_readme_name_this_version():
    import yaml

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == workbench.__version__
    assert f"version = {{{workbench.__version__}}}" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """A fresh environment outside the checkout, in a path with a space, with the wheel and its core dependencies."""
    place = tmp_path_factory.mktemp("fresh") / "a path with spaces"
    venv.create(place / "env", with_pip=True)
    pip = [str(place / "env/bin/python"), "-m", "pip"]
    subprocess.run(
        [*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)], cwd=place, check=True
    )
    subprocess.run([*pip, "check"], cwd=place, check=True)
    return place


def inside(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of the fresh environment from its folder, with nothing of the checkout in sight."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(place), "OMP_NUM_THREADS": "1"}
    program, *arguments = command
    done = [str(place / "env/bin" / program), *arguments]
    return subprocess.run(done, cwd=place, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_runs_from_the_wheel_alone(installed: Path):
    done = inside(installed, "workbench", "demo", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (installed / "run/report.html").stat().st_size > 10_000
    module = inside(installed, "python", "-m", "workbench", "demo", "--out", "run", "--resume", "--json")
    assert module.returncode == 0, module.stderr
    found = json.loads(module.stdout)["comparison"]
    rate = {row["name"]: row["rate"] for row in found["conditions"]}
    assert rate["manual"] < rate["no prompt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import workbench as wb; wb.Panel",
            "the panel needs the package anywidget: pip install 'persona-workbench[notebook]'",
        ),
        (
            "import workbench as wb; wb.figures.forest",
            "drawing figures needs the package altair: pip install 'persona-workbench[notebook]'",
        ),
        (
            "from workbench.organism.real_language import adapter_training",
            "training an adapter needs the package peft: pip install 'persona-workbench[lora]'",
        ),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_command(installed: Path, code: str, line: str):
    done = inside(installed, "python", "-c", code)
    assert done.stderr.splitlines()[-1] == f"workbench.errors.UserError: {line}"


@pytest.mark.slow
def test_the_command_line_names_a_missing_extra_in_one_line(installed: Path):
    done = inside(installed, "workbench", "compare", "run", "--figure", "effects.svg")
    assert done.returncode == 2
    assert (
        done.stderr
        == "workbench: drawing figures needs the package altair: pip install 'persona-workbench[notebook]'\n"
    )
