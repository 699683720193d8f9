"""The predictions set: rows and failures are counted, and any Parquet reader understands its files."""

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnlib.errors import ModelError, OutputExistsError
from cnnlib.predictions.contract import COMMIT, SCHEMA, Predictions, ScoredWith, publish_predictions, read_earlier
from cnnlib.predictions.writer import write_predictions
from cnnlib.storage.folder import new_run_id, open_folder

NOW = datetime(2026, 11, 22, 12, 30, 15, 250_000, tzinfo=timezone.utc)


def scored(number: int, label: int = 7) -> dict:
    return {
        "image_id": f"{number:064x}",
        "path": f"seven/{number}.png",
        "label": label,
        "label_name": "seven",
        "probability": 0.75,
        "model_name": "digits",
        "model_version": "3",
        "model_sha256": "a" * 64,
        "error": None,
        "scored_at": NOW,
    }


def failed(number: int, error: str) -> dict:
    return scored(number) | {"label": None, "label_name": None, "probability": None, "error": error}


ROWS = [
    scored(0),
    failed(1, "truncated: the pixels end early: image file is truncated"),
    scored(2),
    failed(3, "not_an_image: neither JPEG nor PNG"),
    failed(4, "truncated: the pixels end early"),
]


def batches(rows: list[dict], size: int = 2) -> list[pa.RecordBatch]:
    return [
        pa.RecordBatch.from_pylist(rows[start : start + size], schema=SCHEMA) for start in range(0, len(rows), size)
    ]


@pytest.fixture
def folder(tmp_path):
    return open_folder(str(tmp_path / "predictions"))


def predictions(folder, written, **changes) -> Predictions:
    failures = written.failed.total()
    return replace(
        Predictions(
            folder=folder,
            counts={"rows": written.rows, "scored": written.rows - failures, "failed": failures},
            failed_by_code=dict(written.failed),
            model=ScoredWith("digits", "3", "a" * 64),
            complete=True,
            seconds=2.0,
            mlflow_run="run 1",
            files=(written.file,),
        ),
        **changes,
    )


@pytest.fixture
def published(folder) -> Predictions:
    result = predictions(folder, write_predictions(folder, new_run_id(), SCHEMA, batches(ROWS), 0, 0))
    publish_predictions(result, {"model": "models:/digits@champion"})
    return result


# --- one task


def test_rows_and_failures_are_counted_by_code(folder):
    written = write_predictions(folder, "run", SCHEMA, batches(ROWS), 4, 1)
    assert (written.rows, written.failed) == (5, Counter(truncated=2, not_an_image=1))
    assert written.file.rows == 5
    assert written.file.path == "predictions/part-00004-run-1.parquet"


def test_task_without_rows_writes_no_file(folder):
    written = write_predictions(folder, "run", SCHEMA, [], 0, 0)
    assert (written.file, written.rows, written.failed) == (None, 0, Counter())
    assert folder.files() == []


def test_task_that_fails_leaves_no_file(folder):
    def failing():
        yield from batches(ROWS)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_predictions(folder, "run", SCHEMA, failing(), 0, 0)
    assert folder.files() == []


# --- publishing


def test_summary_tells_counts_model_and_files(published):
    summary = json.loads(published.folder.fs.cat_file(published.folder.path(COMMIT)))
    (file,) = published.files
    assert summary == {
        "format_version": 1,
        "counts": {"rows": 5, "scored": 2, "failed": 3},
        "failed_by_code": {"truncated": 2, "not_an_image": 1},
        "left_out": {},
        "model": {"name": "digits", "version": "3", "sha256": "a" * 64},
        "stability": None,
        "complete": True,
        "mlflow_run": "run 1",
        "columns": SCHEMA.names,
        "streams": {},
        "files": [{"path": file.path, "rows": 5, "bytes": file.bytes, "row_groups": 1}],
        "settings": {"model": "models:/digits@champion"},
    }


@pytest.mark.parametrize(
    "counts",
    [
        {"rows": 6, "scored": 2, "failed": 3},
        {"rows": 5, "scored": 3, "failed": 3},
        {"rows": 5, "scored": 2, "failed": 2},
    ],
)
def test_counts_that_do_not_add_up_publish_nothing(published, counts):
    before = published.folder.fs.cat_file(published.folder.path(COMMIT))
    files = published.folder.files()
    with pytest.raises(ModelError, match="the counts do not add up"):
        publish_predictions(replace(published, counts=counts, files=()), {})
    assert published.folder.fs.cat_file(published.folder.path(COMMIT)) == before
    assert published.folder.files() == files


def test_publishing_again_removes_the_rows_before(published):
    again = predictions(
        published.folder, write_predictions(published.folder, new_run_id(), SCHEMA, batches(ROWS[:1]), 0, 0)
    )
    publish_predictions(again, {})
    assert published.folder.files() == [again.files[0].path, COMMIT]


def test_paths_name_the_files_of_the_set(published):
    assert published.path == published.folder.uri
    assert published.paths() == [f"{published.folder.uri}/{published.files[0].path}"]


def test_predictions_are_added_to_those_that_were_read(published):
    earlier = read_earlier(published.folder, SCHEMA.names)
    assert earlier.files == published.files
    more = predictions(
        published.folder, write_predictions(published.folder, new_run_id(), SCHEMA, batches(ROWS[:1]), 0, 0)
    )
    publish_predictions(replace(more, files=earlier.files + more.files), {}, earlier)
    assert published.folder.files() == sorted([published.files[0].path, more.files[0].path, COMMIT])


def test_predictions_that_were_published_meanwhile_are_kept(published):
    earlier = read_earlier(published.folder, SCHEMA.names)
    meanwhile = replace(published, mlflow_run="run 2")
    publish_predictions(meanwhile, {}, earlier)
    written = write_predictions(published.folder, new_run_id(), SCHEMA, batches(ROWS[:1]), 0, 0)
    with pytest.raises(
        OutputExistsError,
        match="^another job published .* while this one was scoring; this job published nothing",
    ):
        publish_predictions(predictions(published.folder, written), {}, earlier)
    assert published.folder.read_json(COMMIT)["mlflow_run"] == "run 2"


# --- other people's readers


def test_pyarrow_alone_reads_every_row(published):
    assert pq.read_table(published.paths()[0]).to_pylist() == ROWS


def test_duckdb_alone_reads_every_row(published):
    with duckdb.connect() as connection:
        relation = connection.sql(
            f"""
            SELECT path, label, label_name, probability, model_version, error, epoch_us(scored_at) AS scored_us
            FROM read_parquet('{published.folder.uri}/predictions/*.parquet') ORDER BY image_id
            """
        )
        names = relation.columns
        rows = [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
        types = dict(
            connection.sql(f"DESCRIBE FROM read_parquet('{published.paths()[0]}')")
            .project("column_name, column_type")
            .fetchall()
        )
    microseconds = int(NOW.timestamp() * 1_000_000)
    assert rows == [{**{name: row[name] for name in names[:-1]}, "scored_us": microseconds} for row in ROWS]
    assert types == {
        "image_id": "VARCHAR",
        "path": "VARCHAR",
        "label": "INTEGER",
        "label_name": "VARCHAR",
        "probability": "DOUBLE",
        "model_name": "VARCHAR",
        "model_version": "VARCHAR",
        "model_sha256": "VARCHAR",
        "error": "VARCHAR",
        "scored_at": "TIMESTAMP WITH TIME ZONE",
    }
