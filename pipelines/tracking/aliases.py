"""Aliases of registered models: which version has one, who moved it there, and who is about to.

Tags of a version say how it came to an alias: sparkcnn.ALIAS.by, .at, .because, .run, .report, and as .previous the
version that had it before, "" where none had. A tag of the model, sparkcnn.ALIAS.promotion.RUN_ID, says that a run is
about to move it, and goes when that run ends.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cnnlib.errors import ModelError, PromotionError, first_line

_USER = "mlflow.user"


@dataclass(frozen=True)
class Version:
    """A version of a registered model, and the id of the run that made it, None where none did."""

    name: str
    version: str
    run_id: str | None
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def uri(self) -> str:
        """What MLflow calls it."""
        return f"models:/{self.name}/{self.version}"


def find_version(name: str, wanted: str) -> Version:
    """A version by its number, or by an alias. Raises ModelError where there is none."""
    client = MlflowClient()
    try:
        if wanted.isdigit():
            return _version(client.get_model_version(name, wanted))
        return _version(client.get_model_version_by_alias(name, wanted))
    except MlflowException as error:
        raise ModelError(
            f"{name} has no version {wanted}: {first_line(error)}; name one that was registered"
        ) from error


def version_with(name: str, alias: str) -> Version | None:
    """The version that has an alias, None where none has. Raises ModelError where there is no such model."""
    client = MlflowClient()
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        raise ModelError(f"model={name} cannot be had: {first_line(error)}; name a registered model") from error
    # Unity Catalog lists aliases with their versions as numbers, others as text.
    return find_version(name, str(aliases[alias])) if alias in aliases else None


def _version(found: ModelVersion) -> Version:
    return Version(found.name, str(found.version), found.run_id or None, dict(found.tags or {}))


def move_alias(
    version: Version,
    alias: str,
    run_id: str,
    because: str,
    *,
    report: str = "",
    check: Callable[[], None] = lambda: None,
) -> None:
    """Let an alias name a version, and tag it with who did that, when, why and with what report.

    `check` is called at the very last moment; what it raises leaves alias and tags as they were.
    """
    before = version_with(version.name, alias)
    tags = {
        "by": _user(run_id),
        "at": _now(),
        "because": because,
        "run": run_id,
        "report": report,
        # Of a version that has it already, what came before stays.
        **({} if before and before.version == version.version else {"previous": before.version if before else ""}),
    }
    _tag(version, alias, tags)
    try:
        check()
    except BaseException:
        _restore_tags(version, alias, tags)
        raise
    MlflowClient().set_registered_model_alias(version.name, alias, version.version)


def move_back(name: str, alias: str, run_id: str, because: str) -> tuple[Version, Version]:
    """Let an alias name the version that had it before; gives (the version that loses it, the one that gets it).

    A tag of the one that loses it says so. Raises PromotionError where none had it before, or that is not known.
    """
    now = version_with(name, alias)
    previous = now.tags.get(_key(alias, "previous")) if now else None
    if now is None or not previous:
        held = f"{now} has it, and" if now else "no version has it:"
        raise PromotionError(f"{name}@{alias} cannot go back: {held} no tag says which had it before; set it in MLflow")
    back = find_version(name, previous)
    _tag(now, alias, {"rolled_back": f"to version {back.version} by {_user(run_id)} at {_now()}: {because}"})
    MlflowClient().set_registered_model_alias(name, alias, back.version)
    return now, back


@dataclass(frozen=True)
class Claim:
    """A run's claim to an alias, and the version that had it when the claim was made, None where none had."""

    name: str
    alias: str
    run_id: str
    champion: Version | None

    def check(self) -> None:
        """Raise PromotionError where the alias may not move: an earlier run claims it too, or it has moved."""
        # In this order: a run lets go of its claim after it has moved the alias.
        _give_way(self.name, self.alias, self.run_id)
        was, now = (version and version.version for version in (self.champion, version_with(self.name, self.alias)))
        if was != now:
            raise PromotionError(
                f"{self.name}@{self.alias} was moved from version {was} to {now} meanwhile, and stays there: the "
                "challenger was not compared with that; run this again"
            )


@contextmanager
def promotion_of(name: str, alias: str, run_id: str) -> Iterator[Claim]:
    """Claim an alias for the body. Raises PromotionError, at once, where an earlier run has claimed it and goes on.

    MLflow cannot compare and set. So every run writes a claim of its own before it looks for those of others, and of
    two that see each other the one that started later gives way. `Claim.check` looks once more before the alias moves:
    what the body does meanwhile takes longer than the way of the other from its start to its claim.
    """
    client = MlflowClient()
    client.set_registered_model_tag(name, _claim(alias, run_id), _now())
    try:
        _give_way(name, alias, run_id)
        yield Claim(name, alias, run_id, version_with(name, alias))
    finally:
        # The claim of a run that has ended counts for nothing.
        with suppress(MlflowException):
            client.delete_registered_model_tag(name, _claim(alias, run_id))


def _give_way(name: str, alias: str, run_id: str) -> None:
    """Raise PromotionError where a run that started earlier, and goes on, has claimed the alias too."""
    client = MlflowClient()
    prefix = _claim(alias, "")
    ours = _order(client.get_run(run_id))
    for key in client.get_registered_model(name).tags:
        other = key.removeprefix(prefix)
        if other in (key, run_id):
            continue
        run = _running(client, other)
        if run is not None and _order(run) < ours:
            raise PromotionError(
                f"{name}@{alias} is being promoted by another job (run {other}, {_user(other)}), and stays as it is: "
                f"wait for it, or where it died end it with mlflow runs delete --run-id {other}"
            )


def _running(client: MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    alive = run.info.status == RunStatus.to_string(RunStatus.RUNNING)
    return run if alive and run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _order(run: Run) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def _tag(version: Version, alias: str, tags: Mapping[str, str]) -> None:
    client = MlflowClient()
    for name, value in tags.items():
        client.set_model_version_tag(version.name, version.version, _key(alias, name), value)


def _restore_tags(version: Version, alias: str, written: Mapping[str, str]) -> None:
    client = MlflowClient()
    for name in written:
        key = _key(alias, name)
        if key in version.tags:
            client.set_model_version_tag(version.name, version.version, key, version.tags[key])
        else:
            client.delete_model_version_tag(version.name, version.version, key)


def _key(alias: str, name: str) -> str:
    return f"sparkcnn.{alias}.{name}"


def _claim(alias: str, run_id: str) -> str:
    return _key(alias, f"promotion.{run_id}")


def _user(run_id: str) -> str:
    return MlflowClient().get_run(run_id).data.tags.get(_USER, "unknown")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
