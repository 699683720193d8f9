"""Folders of Delta, Iceberg and Hudi are told from plain Parquet by their logs."""

import pytest

from cnnlib.sources.table_logs import table_log_above


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("_delta_log/00000000000000000000.json", "delta"),
        (".hoodie/hoodie.properties", "hudi"),
        ("metadata/v1.metadata.json", "iceberg"),
        ("metadata/00001-5f3c.metadata.json", "iceberg"),
        ("metadata/version-hint.text", "iceberg"),
        ("metadata/notes.txt", None),
        ("_spark_metadata/0", None),
        ("_delta_log", None),
        ("_SUCCESS", None),
    ],
)
def test_log_tells_the_format(tmp_path, log, expected):
    table = tmp_path / "table"
    file = table / log
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    (table / "day=1" / "hour=2").mkdir(parents=True)
    part = table / "day=1" / "hour=2" / "part-0.parquet"
    part.write_bytes(b"PAR1")
    found = None if expected is None else (expected, str(table))
    assert [table_log_above(str(path)) for path in (table, table / "day=1", part)] == [found] * 3
    assert table_log_above(f"file://{table}/day=1") in (None, (expected, str(table)))
    assert table_log_above(str(tmp_path)) is None
