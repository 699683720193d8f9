"""One task's share of a predictions set: write the rows, and count them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from cnnlib.parts import PartFile, PartWriter
from cnnlib.predict import ERROR
from cnnlib.predictions import ROWS, SCHEMA
from cnnlib.storage import Folder, part_name

ROWS_PER_ROW_GROUP = 100_000


@dataclass(frozen=True)
class Share:
    """What one task wrote: its file (None where it had no row), its rows, and the failed ones by code."""

    file: PartFile | None
    rows: int
    failed: Counter[str]


def write_share(folder: Folder, run_id: str, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> Share:
    """Write one task's predictions, columns as in `predictions.SCHEMA`. The file of a task that fails is removed."""
    rows, failed = 0, Counter[str]()
    path = f"{ROWS}/{part_name(run_id, task, attempt)}"
    with PartWriter(folder, path, SCHEMA, ROWS_PER_ROW_GROUP) as writer:
        for batch in batches:
            # Spark's types differ in small things, such as which columns may be null.
            table = pa.Table.from_batches([batch]).cast(SCHEMA)
            rows += table.num_rows
            failed.update(error.split(":", 1)[0] for error in table[ERROR].drop_null().to_pylist())
            for fitting in table.to_batches():
                writer.write(fitting)
        return Share(writer.close(), rows, failed)
