"""Aliases of registered models: which version has one, who moved it there, and which run is about to move it.

The tags of a version say how it got an alias: sparkcnn_ALIAS_by, _at, _because, _run and _report. The tag
sparkcnn_ALIAS_previous has the version that had the alias before, or "" if none had. While a run is about to move an
alias, the model has the tag sparkcnn_ALIAS_promotion_RUN_ID.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunStatus
from mlflow.exceptions import MlflowException

from cnnlib.errors import ModelError, PromotionError, first_line
from pipelines.tracking.model_uris import ModelVersion
from pipelines.tracking.registry import find_version
from pipelines.tracking.tags import earlier_key, read_tag, tag_key, tag_value

_USER = "mlflow.user"


def version_with(name: str, alias: str) -> ModelVersion | None:
    """Return the version that has an alias, or None if no version has it. Raises ModelError for an unknown model."""
    client = MlflowClient()
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        raise ModelError(f"model={name} cannot be read: {first_line(error)}; name a registered model") from error
    # Unity Catalog lists the versions of aliases as numbers, other registries as text.
    return find_version(name, str(aliases[alias])) if alias in aliases else None


def move_alias(
    version: ModelVersion,
    alias: str,
    run_id: str,
    because: str,
    *,
    report: str = "",
    check: Callable[[], None] = lambda: None,
) -> None:
    """Move an alias to a version, and tag the version with the user, the time, the reason, the run and the report.

    `check` is called immediately before the move. If it raises, the alias and the tags stay as they were.
    """
    before = version_with(version.name, alias)
    tags = {"by": _user(run_id), "at": _now(), "because": because, "run": run_id, "report": report}
    # A version that already has the alias keeps its tag for the version before it.
    if before is None or before.version != version.version:
        tags["previous"] = before.version if before else ""
    _set_tags(version, alias, tags)
    try:
        check()
    except BaseException:
        _restore_tags(version, alias, tags)
        raise
    MlflowClient().set_registered_model_alias(version.name, alias, version.version)


def move_back(name: str, alias: str, run_id: str, because: str) -> tuple[ModelVersion, ModelVersion]:
    """Move an alias back to the version that had it before.

    Returns (the version that loses the alias, the version that gets it), and tags the first one with who did this and
    why. Raises PromotionError if no version had the alias before, or if no tag names that version.
    """
    now = version_with(name, alias)
    if now is None:
        raise PromotionError(f"{name}@{alias} cannot be rolled back: no version has the alias; set it in MLflow")
    previous = read_tag(now.tags, alias, "previous")
    if not previous:
        raise PromotionError(
            f"{name}@{alias} cannot be rolled back: {now} has the alias, and no tag names the version that had it "
            "before; set the alias in MLflow"
        )
    back = find_version(name, previous)
    _set_tags(now, alias, {"rolled_back": f"to version {back.version} by {_user(run_id)} at {_now()}: {because}"})
    MlflowClient().set_registered_model_alias(name, alias, back.version)
    return now, back


@dataclass(frozen=True)
class Claim:
    """A run's claim to an alias; `champion` is the version that had the alias when the claim was made, if any."""

    name: str
    alias: str
    run_id: str
    champion: ModelVersion | None

    def check(self) -> None:
        """Raise PromotionError if an earlier run claims the alias too, or if the alias has moved since the claim."""
        # In this order, because a run removes its claim only after it has moved the alias.
        _refuse_if_earlier_run_claims(self.name, self.alias, self.run_id)
        was, now = (version and version.version for version in (self.champion, version_with(self.name, self.alias)))
        if was != now:
            raise PromotionError(
                f"{self.name}@{self.alias} was moved from version {was} to {now} during this promotion, and stays "
                "there, because the challenger was not compared with that version; run this again"
            )


@contextmanager
def promotion_of(name: str, alias: str, run_id: str) -> Iterator[Claim]:
    """Claim an alias for the body. Raises PromotionError at once if an earlier run that still runs has claimed it.

    MLflow has no compare-and-set. So every run first writes its own claim and then looks for the claims of others. If
    two runs see each other, the one that started later stops. `Claim.check` looks again just before the alias moves.
    By then another run that started earlier has written its claim: the body takes longer than a run takes from its
    start to its claim.
    """
    client = MlflowClient()
    client.set_registered_model_tag(name, _claim_tag(alias, run_id), _now())
    try:
        _refuse_if_earlier_run_claims(name, alias, run_id)
        yield Claim(name, alias, run_id, version_with(name, alias))
    finally:
        # A claim that stays here does no harm: the claim of a run that has ended does not count.
        with suppress(MlflowException):
            client.delete_registered_model_tag(name, _claim_tag(alias, run_id))


def _refuse_if_earlier_run_claims(name: str, alias: str, run_id: str) -> None:
    """Raise PromotionError if a run that started earlier, and still runs, has claimed the alias too."""
    client = MlflowClient()
    prefixes = tag_key(alias, "promotion", ""), earlier_key(alias, "promotion", "")
    ours = _start_order(client.get_run(run_id))
    for key in client.get_registered_model(name).tags:
        other = key.removeprefix(prefixes[0]).removeprefix(prefixes[1])
        if other in (key, run_id):
            continue
        run = _find_running(client, other)
        if run is not None and _start_order(run) < ours:
            raise PromotionError(
                f"{name}@{alias} is being promoted by another job (run {other}, {_user(other)}), so the alias was not "
                f"moved; wait for that job, or if it died, end its run with mlflow runs delete --run-id {other}"
            )


def _find_running(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run, or None if it has ended, was deleted or never existed."""
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    running = run.info.status == RunStatus.to_string(RunStatus.RUNNING)
    return run if running and run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _start_order(run: Run) -> tuple[int, str]:
    """Return a key that sorts runs by their start; the id decides between runs of the same millisecond."""
    return run.info.start_time, run.info.run_id


def _set_tags(version: ModelVersion, alias: str, tags: Mapping[str, str]) -> None:
    client = MlflowClient()
    for name, value in tags.items():
        client.set_model_version_tag(version.name, version.version, tag_key(alias, name), tag_value(value))


def _restore_tags(version: ModelVersion, alias: str, written: Mapping[str, str]) -> None:
    """Give the tags that were written their values from before, or delete those that did not exist."""
    client = MlflowClient()
    for name in written:
        tag = tag_key(alias, name)
        if tag in version.tags:
            client.set_model_version_tag(version.name, version.version, tag, version.tags[tag])
        else:
            client.delete_model_version_tag(version.name, version.version, tag)


def _claim_tag(alias: str, run_id: str) -> str:
    return tag_key(alias, "promotion", run_id)


def _user(run_id: str) -> str:
    return MlflowClient().get_run(run_id).data.tags.get(_USER, "unknown")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
