"""Tables in a terminal: numbers are whole, whatever the names of the classes are."""

from types import SimpleNamespace

import numpy as np
from rich.console import Console

from cnnlib.evaluation.metrics import Confusion
from jobs.tables.evaluation import classes_table


def test_long_name_of_a_class_leaves_the_numbers_whole() -> None:
    names = ("golden_retriever_" * 12, "cat")
    confusion = Confusion(names, np.array([[1200, 34], [5, 678]]), failed=np.zeros(2, int))
    console = Console(width=60, record=True)
    with console.capture() as printed:
        console.print(classes_table(SimpleNamespace(confusion=confusion)))
    first = next(line for line in printed.get().splitlines() if "1,234" in line)
    assert [cell.strip() for cell in first.strip("│").split("│")][1:] == ["1,234", "0.9959", "0.9724", "0.9840"]
