"""Running checks one after the other: each within a time, none hindered by another's fault."""

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
    """What was looked at, as part of what, what was found, and the verdict.

    `note` says what to do about a problem, or why something was not checked.
    """

    part: str
    what: str
    found: str
    verdict: str
    note: str = ""


class Problem(Exception):
    """Raised by a check that found something, and that it is wrong."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(advice)
        self.found = found
        self.advice = advice


class NotChecked(Exception):
    """Raised by a check that has nothing to look at; the message says why."""


# A check gives what it found, in words, and raises one of the above, or any other exception, where all is not well.
Check = Callable[[], str]
# Calls a function with arguments in several of Spark's tasks; it gives a dict, which comes back with its "host".
AskTasks = Callable[..., list[dict[str, Any]]]


class Examination:
    """Collects findings. `on_timeout` is called when a check has not ended in time, to stop what it waits for."""

    def __init__(self, timeout_s: float, on_timeout: Callable[[], None]) -> None:
        self.findings: list[Finding] = []
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout
        self._late: dict[str, threading.Thread] = {}

    @property
    def unfinished(self) -> list[str]:
        """What still waits, in threads that were left behind."""
        return [what for what, thread in self._late.items() if thread.is_alive()]

    @property
    def problems(self) -> list[str]:
        """What is wrong."""
        return [finding.what for finding in self.findings if finding.verdict == PROBLEM]

    def check(self, part: str, what: str, check: Check) -> None:
        """Run a check, and keep what it found."""
        found = note = ""
        verdict = PROBLEM
        try:
            found, verdict = self.within_time(what, check), OK
        except NotChecked as reason:
            verdict, note = NOT_CHECKED, str(reason)
        except Problem as problem:
            found, note = problem.found, problem.advice
        except SparkcnnError as error:
            note = " ".join(error.message.split())
        except Exception as error:
            note = f"{type(error).__name__}: {first_line(error)}"
        self.findings.append(Finding(part, what, found, verdict, note))

    def within_time(self, what: str, work: Callable[[], Any]) -> Any:
        """Give what `work` gives, or raise what it raises; HostError where it does not end in time."""
        ended: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                ended.append((work(), None))
            except BaseException as error:  # a library may also exit
                ended.append((None, error))

        thread = threading.Thread(target=run, name=f"sparkcnn-{what}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not ended:
            self._late[what] = thread
            self._on_timeout()
            raise HostError(f"no answer for timeout_s={self._timeout_s:g}; look into what hangs, or raise timeout_s")
        result, error = ended[0]
        if error is not None:
            raise error if isinstance(error, Exception) else HostError(f"it exits: {first_line(error)}")
        return result

    def refuse_problems(self) -> None:
        """Raise HostError where a check found a problem."""
        if self.problems:
            raise HostError(
                f"{len(self.problems)} of {len(self.findings)} checks found a problem: {', '.join(self.problems)}; "
                "the table says what to do"
            )


def on_hosts(answers: Iterable[Mapping[str, Any]]) -> str:
    """How many tasks answered, and where.

    >>> on_hosts([{"host": "b"}, {"host": "a"}, {"host": "b"}])
    '3 tasks on a, b'
    """
    named = [answer["host"] for answer in answers]
    hosts = sorted(set(named))
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more hosts" if len(hosts) > 3 else "")
    return f"{len(named)} task{'' if len(named) == 1 else 's'} on {shown}"
