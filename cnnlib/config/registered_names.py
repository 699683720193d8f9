"""Which names a registered model and its aliases may have."""

import re
from typing import Annotated

from pydantic import Field

MODEL_NAME = r"^[^/:]+$"
ALIAS = r"^[A-Za-z][\w-]*$"


def refuse_version_as_alias(alias: str | None) -> str | None:
    """Return the alias. Raises ValueError for one that MLflow keeps for versions.

    >>> refuse_version_as_alias("champion")
    'champion'
    >>> refuse_version_as_alias("v1")
    Traceback (most recent call last):
      ...
    ValueError: MLflow does not allow latest, v1, v2 and so on as an alias; take another name
    """
    if alias is not None and re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError("MLflow does not allow latest, v1, v2 and so on as an alias; take another name")
    return alias


ModelUri = Annotated[
    str,
    Field(
        description="models:/NAME@ALIAS, models:/NAME/VERSION, models:/NAME/latest, models:/NAME/STAGE, models:/m-ID "
        "or runs:/RUN_ID/model"
    ),
]
