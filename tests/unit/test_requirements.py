"""Each set of pins is complete, meets the ranges of setup.py, and fits the name of its profile."""

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PROFILES = sorted(file.stem for file in REQUIREMENTS.glob("*.txt"))
PYTHONS = ("3.10", "3.11", "3.12")

every_set = [pytest.param(profile, python, id=f"{profile}-{python}") for profile in PROFILES for python in PYTHONS]


def read(name: str, python: str | None = None) -> list[Requirement]:
    """Read the lines of a requirements file that count on this machine, with its Python or the one that is named."""
    environment = {"python_version": python, "python_full_version": f"{python}.5"} if python else {}
    lines = (line.partition("#")[0].strip() for line in (REQUIREMENTS / name).read_text().splitlines())
    wanted = [Requirement(line) for line in lines if line]
    return [one for one in wanted if one.marker is None or one.marker.evaluate(environment)]


def pins(name: str, python: str | None = None) -> dict[str, Version]:
    """Read package -> version from a compiled file. Fails if a line is not a pin, or if a package is listed twice."""
    versions: dict[str, Version] = {}
    for one in read(name, python):
        (pin,) = one.specifier
        assert (pin.operator, one.name in versions) == ("==", False), one
        versions[one.name] = Version(pin.version)
    return versions


def test_there_are_two_profiles() -> None:
    assert PROFILES == ["current", "lts"]


@pytest.mark.parametrize(("profile", "python"), every_set)
def test_pins_meet_the_ranges_of_setup(profile: str, python: str) -> None:
    pinned = pins(f"{profile}.txt", python)
    ranges = [Requirement(line) for line in metadata.requires("sparkcnn") or []]
    # An extra is installed only where it is asked for.
    ranges = [one for one in ranges if one.marker is None]
    assert len(ranges) > 10
    assert [f"{one} has {pinned[one.name]}" for one in ranges if pinned[one.name] not in one.specifier] == []


@pytest.mark.parametrize(("profile", "python"), every_set)
def test_pins_meet_the_ranges_of_their_in_files(profile: str, python: str) -> None:
    for asked, compiled in ((f"{profile}.in", f"{profile}.txt"), ("dev.in", f"dev/{profile}.txt")):
        pinned = pins(compiled, python)
        assert [str(one) for one in read(asked, python) if pinned[one.name] not in one.specifier] == []


@pytest.mark.parametrize(("profile", "python"), every_set)
def test_tools_of_a_profile_agree_with_its_pins(profile: str, python: str) -> None:
    pinned, tools = pins(f"{profile}.txt", python), pins(f"dev/{profile}.txt", python)
    assert {name: pinned[name] for name in tools.keys() & pinned} == {
        name: tools[name] for name in tools.keys() & pinned
    }


def test_lts_is_what_databricks_runs() -> None:
    pinned = pins("lts.txt", "3.11")
    release = {name: pinned[name].release[:2] for name in ("pyspark", "pyarrow", "numpy", "tensorflow")}
    assert release == {"pyspark": (3, 5), "pyarrow": (14, 0), "numpy": (1, 26), "tensorflow": (2, 18)}
    assert pinned["mlflow"].major == 2


def test_this_environment_has_exactly_one_profile() -> None:
    """All installed packages have the versions that one and the same profile pins."""
    installed = {canonicalize_name(one.name): Version(one.version) for one in metadata.distributions()}
    differing = {
        profile: [name for name, version in pins(f"{profile}.txt").items() if installed.get(name) != version]
        for profile in PROFILES
    }
    assert [] in differing.values(), differing
