"""What all settings are: typed, frozen, closed; and every one of them under its dotted name."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section of settings: immutable, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def flatten(settings: Settings) -> dict[str, Any]:
    """Give every setting under its dotted name, as MLflow logs them.

    >>> from cnnlib.config import RegisterSettings
    >>> flatten(RegisterSettings(name="digits"))
    {'name': 'digits', 'alias': 'champion'}
    """
    return flatten_values(settings.model_dump(mode="json"))


def flatten_values(values: dict[str, Any]) -> dict[str, Any]:
    """Give every value of nested dictionaries under its dotted name.

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
