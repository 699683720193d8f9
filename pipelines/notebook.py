"""Values for a notebook's settings: from its widgets on Databricks, from its defaults elsewhere."""

from typing import Any


def widget_values(dbutils: Any | None, defaults: dict[str, str]) -> dict[str, str]:
    """Make a text widget for each default and give what the widgets say; the defaults where there is no `dbutils`.

    Call it as `widget_values(globals().get("dbutils"), {...})`: Databricks puts `dbutils` into a notebook's globals.

    >>> widget_values(None, {"output_path": "sets/digits"})
    {'output_path': 'sets/digits'}
    """
    if dbutils is None:
        return dict(defaults)
    for name, default in defaults.items():
        dbutils.widgets.text(name, default)
    return {name: dbutils.widgets.get(name) for name in defaults}
