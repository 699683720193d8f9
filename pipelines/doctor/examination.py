"""Run checks one after the other. Each has a time limit, and an error in one does not stop the others."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnlib.errors import HostError, SparkcnnError, first_line

OK = "ok"
PROBLEM = "problem"
NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """The result of one check: the part of the table and the name of the check, what it found, and the verdict.

    `note` says how to solve a problem, or why something was not checked.
    """

    part: str
    name: str
    found: str
    verdict: str
    note: str = ""


class Problem(Exception):
    """Raised by a check if what it found is wrong."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(advice)
        self.found = found
        self.advice = advice


class NotChecked(Exception):
    """Raised by a check that has nothing to look at. The message says why."""


# A check returns what it found, in words. It raises one of the above, or any other exception, if something is wrong.
Check = Callable[[], str]
# Calls a function with arguments in several Spark tasks. The function returns a dict; "host" is added to it.
AskTasks = Callable[..., list[dict[str, Any]]]


class Examination:
    """Runs checks and collects their findings.

    Calls `on_timeout` if a check exceeds `timeout_s` seconds, to cancel what the check waits for.
    """

    def __init__(self, timeout_s: float, on_timeout: Callable[[], None]) -> None:
        self.findings: list[Finding] = []
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout
        self._late: dict[str, threading.Thread] = {}

    @property
    def unfinished(self) -> list[str]:
        """Names of the checks that exceeded the time limit and still run, each in its thread."""
        return [name for name, thread in self._late.items() if thread.is_alive()]

    @property
    def problems(self) -> list[str]:
        """Names of the checks that found a problem."""
        return [finding.name for finding in self.findings if finding.verdict == PROBLEM]

    def check(self, part: str, name: str, check: Check) -> None:
        """Run a check and add its finding."""
        found = note = ""
        verdict = PROBLEM
        try:
            found, verdict = self.within_time(name, check), OK
        except NotChecked as reason:
            verdict, note = NOT_CHECKED, str(reason)
        except Problem as problem:
            found, note = problem.found, problem.advice
        except SparkcnnError as error:
            note = " ".join(error.message.split())
        except Exception as error:
            note = f"{type(error).__name__}: {first_line(error)}"
        self.findings.append(Finding(part, name, found, verdict, note))

    def within_time(self, name: str, work: Callable[[], Any]) -> Any:
        """Return the result of `work`, or raise its exception. Raises HostError if it exceeds the time limit."""
        outcome: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:  # A library may also call sys.exit.
                outcome.append((None, error))

        thread = threading.Thread(target=run, name=f"sparkcnn-{name}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not outcome:
            self._late[name] = thread
            self._on_timeout()
            raise HostError(f"no answer for timeout_s={self._timeout_s:g}; find out what hangs, or raise timeout_s")
        result, error = outcome[0]
        if error is not None:
            raise error if isinstance(error, Exception) else HostError(f"the check exits: {first_line(error)}")
        return result

    def refuse_problems(self) -> None:
        """Raise HostError if a check found a problem."""
        if self.problems:
            raise HostError(
                f"{len(self.problems)} of {len(self.findings)} checks found a problem: {', '.join(self.problems)}; "
                "the table says what to do"
            )


def on_hosts(answers: Iterable[Mapping[str, Any]]) -> str:
    """Say how many tasks answered, and on which hosts.

    >>> on_hosts([{"host": "b"}, {"host": "a"}, {"host": "b"}])
    '3 tasks on a, b'
    """
    names = [answer["host"] for answer in answers]
    hosts = sorted(set(names))
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more hosts" if len(hosts) > 3 else "")
    return f"{len(names)} task{'' if len(names) == 1 else 's'} on {shown}"
