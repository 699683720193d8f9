"""The base of all settings classes, marks for single settings, and every setting under its dotted name."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

# Marks of a setting: `Field(…, json_schema_extra=MAY_DIFFER_ON_RESUME)`. Join two marks with |.

# A run may be resumed with another value: the setting does not change what is trained.
MAY_DIFFER_ON_RESUME: JsonDict = {"may_differ_on_resume": True}
# compare and tune must not vary the setting: the trainings could not be compared, or would not be kept together.
SAME_IN_ALL_TRAININGS: JsonDict = {"same_in_all_trainings": True}
# The run of a job does not log the setting: it says which run to go on with, or where results go on this machine.
NOT_LOGGED: JsonDict = {"not_logged": True}
# An image set is the same with another value, so ingest does not compare it with that of the set that is there.
SAME_IMAGE_SET: JsonDict = {"same_image_set": True}


class Settings(BaseModel):
    """A section of settings. It cannot be changed, and it refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def fields_of(kind: type[Settings], prefix: str = "") -> dict[str, FieldInfo]:
    """Return every setting of a class under its dotted name. Sections are walked and not returned.

    >>> from cnnlib.config import TrackingSettings
    >>> list(fields_of(TrackingSettings))
    ['uri', 'experiment']
    """
    found: dict[str, FieldInfo] = {}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def names_marked(kind: type[Settings], mark: JsonDict) -> frozenset[str]:
    """Return the dotted names of the settings that carry a mark.

    >>> from cnnlib.config import RegisterSettings
    >>> sorted(names_marked(RegisterSettings, MAY_DIFFER_ON_RESUME))
    ['alias', 'name']
    """
    return frozenset(
        name
        for name, field in fields_of(kind).items()
        if isinstance(field.json_schema_extra, dict) and mark.items() <= field.json_schema_extra.items()
    )


def flatten(settings: Settings, without: JsonDict | None = None) -> dict[str, Any]:
    """Return the value of every setting under its dotted name, except those with the mark `without`.

    >>> from cnnlib.config import RegisterSettings
    >>> flatten(RegisterSettings(name="digits"))
    {'name': 'digits', 'alias': 'champion'}
    """
    left_out = names_marked(type(settings), without) if without else frozenset()
    values = flatten_values(settings.model_dump(mode="json"))
    return {name: value for name, value in values.items() if name not in left_out}


def flatten_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return every value of nested dictionaries under its dotted name.

    >>> flatten_values({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    return dict(_dotted(values))


def _dotted(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            pairs += _dotted(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs
