"""Which MLflow run a training goes on with: one that was interrupted and is of the same settings and images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnlib.errors import ConfigError

AUTO = "auto"
# Settings that say how to go on, where the store is, or what the model is called there, not what is trained.
FREE = frozenset(
    {
        *("train.resume", "train.max_restarts", "train.keep_last", "tracking.uri", "tune.parallel"),
        *("register.name", "register.alias"),
    }
)


@dataclass(frozen=True)
class LoggedRun:
    """A run as the store has it: its settings as text under their dotted names, and the image set's fingerprint."""

    run_id: str
    finished: bool
    settings: Mapping[str, str]
    fingerprint: str | None

    def differences(self, settings: Mapping[str, object], fingerprint: str) -> list[str]:
        """How its settings and image set differ from these, a line each."""
        names = sorted((self.settings.keys() | settings.keys()) - FREE)
        found = [
            f"{name} was {self.settings.get(name, 'not set')}, received {settings.get(name, 'nothing')}"
            for name in names
            if self.settings.get(name) != str(settings.get(name))
        ]
        if self.fingerprint != fingerprint:
            found.append(f"the image set's fingerprint was {self.fingerprint or 'not set'}, received {fingerprint}")
        return found


def newest_fitting(runs: Iterable[LoggedRun], settings: Mapping[str, object], fingerprint: str) -> str | None:
    """The id of the first unfinished run of these settings and this image set, None without one."""
    fitting = (run.run_id for run in runs if not run.finished and not run.differences(settings, fingerprint))
    return next(fitting, None)


def check_resumable(run: LoggedRun, settings: Mapping[str, object], fingerprint: str, job: str = "train") -> None:
    """Raise ConfigError for a run that is finished, or has other settings or images; it names what differs."""
    given = f"{job}.resume={run.run_id}"
    if run.finished:
        raise ConfigError(f"{given} is finished already; {job} anew without {job}.resume")
    differences = run.differences(settings, fingerprint)
    if differences:
        raise ConfigError(f"{given} was started otherwise: {'; '.join(differences)}; give the same, or {job} anew")
