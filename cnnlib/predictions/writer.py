"""Write and count the predictions of one task."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from cnnlib.image_set.contract import PATH
from cnnlib.predictions.contract import ROWS
from cnnlib.predictions.drift import confidence_counts
from cnnlib.sealed.frozen.predict import ERROR, LABEL, PROBABILITY
from cnnlib.storage.folder import Folder, part_name
from cnnlib.storage.parts import PartFile, PartWriter

ROWS_PER_ROW_GROUP = 100_000
# Failed rows that each task describes.
EXAMPLES = 3


@dataclass(frozen=True)
class WrittenPredictions:
    """The file that one task wrote, and counts of its rows.

    `file` is None if the task had no row. `failed` counts the failed rows by error code. For the others, `labels`
    counts the predicted labels, and `confidences` the bins of `drift.confidence_counts`. `skipped` rows were left out,
    because they have predictions already. `examples` are the first failed rows, as "path: error".
    """

    file: PartFile | None
    rows: int
    failed: Counter[str]
    labels: Counter[int]
    confidences: Counter[int]
    skipped: int = 0
    examples: tuple[str, ...] = ()


def write_predictions(
    folder: Folder, run_id: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], task: int, attempt: int
) -> WrittenPredictions:
    """Write one task's predictions, whose schema is a `contract.schema_of`. If the task fails, its file is removed."""
    rows, failed, labels, confidences = 0, Counter[str](), Counter[int](), Counter[int]()
    examples: list[str] = []
    path = f"{ROWS}/{part_name(run_id, task, attempt)}"
    with PartWriter(folder, path, schema, ROWS_PER_ROW_GROUP) as writer:
        for batch in batches:
            rows += batch.num_rows
            errors = batch.column(ERROR)
            failed.update(error.split(":", 1)[0] for error in errors.drop_null().to_pylist())
            if len(examples) < EXAMPLES and errors.null_count < batch.num_rows:
                rows_of_batch = zip(batch.column(PATH).to_pylist(), errors.to_pylist(), strict=True)
                examples += [f"{path}: {error}" for path, error in rows_of_batch if error is not None]
            labels.update(batch.column(LABEL).drop_null().to_pylist())
            in_bins = confidence_counts(batch.column(PROBABILITY).drop_null().to_numpy())
            confidences.update(dict(enumerate(in_bins.tolist())))
            writer.write(batch)
        return WrittenPredictions(
            writer.close(), rows, failed, labels, confidences, examples=tuple(examples[:EXAMPLES])
        )
