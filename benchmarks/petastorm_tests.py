"""Check that the Arrow bridge breaks none of petastorm's own tests.

Runs three test files of petastorm's wheel on both profiles. On lts, petastorm is as published. On current, it has the
bridge, and nothing else of this project. Prints the counts of both profiles, and a line for each test that passes on
lts but failed at least once on current:

    make petastorm
    python benchmarks/petastorm_tests.py [--tests FILE_OR_TEST ...]

Most of these tests start threads or processes. Because of a race, some fail now and then on both profiles. So a test
that fails runs again by itself, until it passes or has run RUNS times on a profile. If a test needs a name or a
behaviour that Arrow or NumPy has removed, it fails every time. So a test that passes once on current needs none of
those.

The exit status is 0 if every test that passes on lts also passes on current, and 1 if not. This takes about 20 minutes
on 2 cores.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TEST_FILES = ("test_parquet_reader.py", "test_end_to_end.py", "test_tf_dataset.py")
RUNS = 5
SECONDS_PER_TEST = 300
SECONDS_PER_RUN = 3600

# Every Python runs this when it starts: the tests, Spark's workers and petastorm's processes.
# petastorm's tests use inspect.getargspec, which Python 3.11 has removed.
SITECUSTOMIZE = """
import collections, inspect
if not hasattr(inspect, "getargspec"):
    inspect.getargspec = lambda function: collections.namedtuple("Spec", "args")(inspect.getfullargspec(function).args)
"""
BRIDGE = """
from cnnlib.feed.petastorm.arrow_bridge import install
install()
"""

# A plugin for pytest. The conftest.py of petastorm's tests implements a hook of pytest-logger, and pytest refuses
# unknown hooks. And after a race, a thread of petastorm may never end: pytest must not wait for it after the report.
PLUGIN = """
import os
class Hooks:
    def pytest_logger_config(self, logger_config): ...
def pytest_addhooks(pluginmanager):
    pluginmanager.add_hookspecs(Hooks)
def pytest_unconfigure(config):
    os._exit(0)
"""


@dataclass(frozen=True)
class Profile:
    """One side of the comparison: its environment, and the code that its Pythons run when they start."""

    name: str
    venv: str
    description: str
    sitecustomize: str

    @property
    def python(self) -> str:
        """The path of its interpreter."""
        return str(ROOT / self.venv / "bin" / "python")


LTS = Profile("lts", ".venv-lts", "petastorm as published", SITECUSTOMIZE)
CURRENT = Profile("current", ".venv", "petastorm with the bridge", SITECUSTOMIZE + BRIDGE)


@dataclass(frozen=True)
class Outcome:
    """The tests of a profile that passed at once, in a later run, or never (with the last error of each)."""

    at_once: frozenset[str]
    later: frozenset[str]
    never: dict[str, str]

    @property
    def passed(self) -> frozenset[str]:
        """Every test that passed in some run."""
        return self.at_once | self.later


def run_profile(profile: Profile, tests: Sequence[str]) -> Outcome:
    """Run tests of petastorm on a profile, and repeat those that fail.

    Raises CalledProcessError if the packages that the tests need cannot be installed, and RuntimeError if pytest ends
    without a report.
    """
    print(f"{profile.name}: {profile.description}, {_versions(profile)}", flush=True)
    with TemporaryDirectory(prefix="petastorm-tests-") as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\n")  # otherwise pytest would find the settings of this project
        (folder / "start").mkdir()
        (folder / "start" / "sitecustomize.py").write_text(profile.sitecustomize)
        (folder / "start" / "petastorm_plugin.py").write_text(PLUGIN)
        _install_extras(profile, folder / "extras")
        results = _run_tests(profile, folder, tests)
        never = {test: error for test, error in results.items() if error is not None}
        at_once = results.keys() - never.keys()
        for _ in range(RUNS - 1):
            # Run each in its own process, so that none depends on what another has left behind.
            for test in list(never):
                error = _run_tests(profile, folder, [test]).get(test, "it did not run")
                if error is None:
                    del never[test]
                else:
                    never[test] = error
        return Outcome(frozenset(at_once), frozenset(results.keys() - at_once - never.keys()), never)


def _versions(profile: Profile) -> str:
    names = ("petastorm", "pyarrow", "numpy", "pyspark", "tensorflow")
    program = f"from importlib.metadata import version\nprint(', '.join(n + ' ' + version(n) for n in {names}))"
    return subprocess.check_output([profile.python, "-c", program], text=True).strip()


def _install_extras(profile: Profile, folder: Path) -> None:
    install = [profile.python, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(folder)]
    subprocess.run([*install, "-r", str(Path(__file__).with_suffix(".txt"))], check=True)


def _run_tests(profile: Profile, folder: Path, tests: Iterable[str]) -> dict[str, str | None]:
    """Run tests, given as `file` or `file::test`. Return the first line of each test's error by `file::test`.

    The error is None if the test passed. Raises RuntimeError if pytest ends without a report, and TimeoutExpired if
    pytest does not end in time.
    """
    packages = subprocess.check_output(
        [profile.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')"], text=True
    )
    report, log = folder / "report.xml", folder / "log"
    report.unlink(missing_ok=True)
    command = [profile.python, "-m", "pytest", "-c", str(folder / "pytest.ini"), f"--junitxml={report}"]
    # Use plain asserts: to rewrite them, pytest would load the test modules itself, and so bypass the bridge.
    command += ["--assert=plain", "-p", "no:cacheprovider", "-p", "petastorm_plugin", "-p", "pytest_timeout"]
    command += [f"--timeout={SECONDS_PER_TEST}", f"--rootdir={packages}", f"--basetemp={folder / 'data'}"]
    command += [os.path.join(packages, "petastorm", "tests", test) for test in tests]
    with log.open("w") as output:
        environment = _environment(profile, folder)
        subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, timeout=SECONDS_PER_RUN)
    if not report.exists():
        raise RuntimeError(f"{profile.name}: pytest ended without a report:\n{log.read_text()[-3000:]}")
    return dict(map(_result, ElementTree.parse(report).iter("testcase")))


def _environment(profile: Profile, folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "start"), str(folder / "extras")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYSPARK_PYTHON": profile.python,
        "PYSPARK_DRIVER_PYTHON": profile.python,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _result(case: ElementTree.Element) -> tuple[str, str | None]:
    test = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
    for kind in ("error", "failure", "skipped"):
        found = case.find(kind)
        if found is not None:
            return test, f"{kind}: {found.get('message', '').strip()}".splitlines()[0]
    return test, None


def _print_counts(outcome: Outcome, files: Iterable[str]) -> None:
    for file in files:
        at_once, later, never = (_count_in(file, tests) for tests in (outcome.at_once, outcome.later, outcome.never))
        details = f"{at_once} at once, {later} in a later run, {never} in none of {RUNS}"
        print(f"    {file}: {at_once + later} of {at_once + later + never} pass ({details})")
    for test, error in outcome.never.items():
        print(f"    fails: {test}: {error[:150]}")
    sys.stdout.flush()


def _count_in(file: str, tests: Collection[str]) -> int:
    return sum(test.startswith(f"{file}::") for test in tests)


def main() -> int:
    """Run the tests on both profiles, print the counts of both, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="+", default=TEST_FILES, metavar="FILE_OR_TEST", help="e.g. FILE::TEST")
    tests = parser.parse_args().tests
    files = dict.fromkeys(test.split("::")[0] for test in tests)
    outcomes = []
    for profile in (LTS, CURRENT):
        subprocess.run(["make", "--silent", "environment", f"PROFILE={profile.name}"], cwd=ROOT, check=True)
        outcomes.append(run_profile(profile, tests))
        _print_counts(outcomes[-1], files)
    lts, current = outcomes
    for test in sorted(lts.passed & current.later):
        print(f"failed at first on current, then passed with the same Arrow and NumPy: {test}")
    lost = sorted(lts.passed - current.passed)
    for test in lost:
        print(f"PASSES ON LTS, FAILS ON CURRENT: {test}: {current.never.get(test, 'it did not run')}")
    print(f"{len(lts.passed)} pass on lts, {len(current.passed)} on current; {len(lost)} of lts fail on current")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
