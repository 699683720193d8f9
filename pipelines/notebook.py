"""Values for a notebook's settings: from widgets on Databricks, and from defaults elsewhere."""

from typing import Any


def widget_values(dbutils: Any | None, defaults: dict[str, str]) -> dict[str, str]:
    """Make a text widget for each default, and return the widgets' values. Without `dbutils`, return the defaults.

    Call it as `widget_values(globals().get("dbutils"), {...})`, because Databricks puts `dbutils` into a notebook's
    globals.

    >>> widget_values(None, {"output_path": "sets/digits"})
    {'output_path': 'sets/digits'}
    """
    if dbutils is None:
        return dict(defaults)
    for name, default in defaults.items():
        dbutils.widgets.text(name, default)
    return {name: dbutils.widgets.get(name) for name in defaults}
