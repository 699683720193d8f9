"""Which MLflow run can be resumed: an unfinished one with the same settings and the same images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnlib.config import CompareSettings, TrainSettings, TuneSettings
from cnnlib.config.settings import MAY_DIFFER_ON_RESUME, names_marked
from cnnlib.errors import ConfigError

AUTO = "auto"

_MAY_DIFFER = frozenset[str]().union(
    *(names_marked(kind, MAY_DIFFER_ON_RESUME) for kind in (TrainSettings, CompareSettings, TuneSettings))
)


@dataclass(frozen=True)
class LoggedRun:
    """A run as the MLflow store has it.

    `settings` are text under their dotted names, `fingerprint` is the image set's.
    """

    run_id: str
    finished: bool
    settings: Mapping[str, str]
    fingerprint: str | None

    def differences(self, settings: Mapping[str, object], fingerprint: str) -> list[str]:
        """Return one line for each setting that differs, and one if the image set differs."""
        names = sorted((self.settings.keys() | settings.keys()) - _MAY_DIFFER)
        found = [
            f"{name} was {self.settings.get(name, 'not set')}, received {settings.get(name, 'nothing')}"
            for name in names
            if self.settings.get(name) != str(settings.get(name))
        ]
        if self.fingerprint != fingerprint:
            found.append(f"the image set's fingerprint was {self.fingerprint or 'not set'}, received {fingerprint}")
        return found


def newest_fitting(runs: Iterable[LoggedRun], settings: Mapping[str, object], fingerprint: str) -> str | None:
    """Return the id of the first unfinished run with these settings and this image set, or None.

    `runs` come newest first.
    """
    fitting = (run.run_id for run in runs if not run.finished and not run.differences(settings, fingerprint))
    return next(fitting, None)


def check_resumable(run: LoggedRun, settings: Mapping[str, object], fingerprint: str, job: str = "train") -> None:
    """Raise ConfigError if the run has finished, or has other settings or images. The error says what differs."""
    given = f"{job}.resume={run.run_id}"
    if run.finished:
        raise ConfigError(f"{given} has already finished; leave out {job}.resume to start a new run")
    differences = run.differences(settings, fingerprint)
    if differences:
        raise ConfigError(
            f"{given} was started with other settings or images: {'; '.join(differences)}; "
            f"use the same ones, or leave out {job}.resume to start a new run"
        )
