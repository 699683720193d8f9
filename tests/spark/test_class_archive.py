import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import class_archive
from pipelines.spark.session import class_archive_options
from tests.spark.own_process import ROOT, environment

# The kernel knows whether the Java process has mapped the archive.
SESSION = """
import json, sys
from pathlib import Path
import psutil
from pipelines.spark import session
archive = Path(sys.argv[1])
options = session.class_archive_options
session.class_archive_options = lambda: options(archive)
rows = session.spark_session().range(3).count()
(java,) = [process for process in psutil.Process().children() if process.name() == "java"]
print(json.dumps([rows, any(part.path == str(archive) for part in java.memory_maps())]))
"""


def rows_and_mapped(archive: Path) -> tuple[list[object], str]:
    own = {**environment(), "SPARK_SUBMIT_OPTS": ""}
    command = [sys.executable, "-c", SESSION, str(archive)]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_session_uses_its_archive_and_ignores_a_foreign_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "")
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"):
        monkeypatch.delenv(name, raising=False)
    archive = tmp_path / "with space" / "classes.jsa"

    class_archive.make_archive(archive)

    assert [path.name for path in archive.parent.iterdir()] == ["classes.jsa"]
    found, said = rows_and_mapped(archive)
    assert found == [3, True]

    archive.unlink()
    archive.write_text("of another Java")
    found, said_of_another = rows_and_mapped(archive)
    assert found == [3, False]
    assert "cds" not in said + said_of_another


def test_java_gets_no_option_without_an_archive(tmp_path):
    assert class_archive_options(tmp_path / "none.jsa") == ""


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(class_archive.HostError, match=r"cannot be written: .*File exists: .*/file'"):
        class_archive.make_archive(tmp_path / "file" / "classes.jsa")


def test_error_quotes_java(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-javaagent:none.jar")

    with pytest.raises(class_archive.HostError, match="did not write the archive of Spark's classes: .+"):
        class_archive.make_archive(tmp_path / "classes.jsa")
    assert list(tmp_path.iterdir()) == []
