"""The settings of a session: what the user has configured holds, and options survive blanks and quotes in paths."""

import re
from pathlib import Path

import pytest

from cnnlib.errors import HostError
from pipelines.spark import session
from pipelines.spark.session import class_archive_options, configured_by_user, parse_defaults


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let Spark read its settings from an empty folder, which is returned."""
    for name in ("MASTER", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", "SPARK_LOCAL_IP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    return tmp_path


def test_nothing_is_configured_without_file_and_variables() -> None:
    assert configured_by_user() == {}
    assert session._defaults({})["spark.master"] == "local[*]"


def test_file_of_defaults_holds(nothing_configured: Path) -> None:
    (nothing_configured / "spark-defaults.conf").write_text(
        "# the cluster's\nspark.master   spark://head:7077\nspark.driver.memory=8g\n"
        "spark.sql.session.timeZone : Europe/Berlin\n\nnot.spark 1\n"
    )
    assert configured_by_user() == {
        "spark.master": "spark://head:7077",
        "spark.driver.memory": "8g",
        "spark.sql.session.timeZone": "Europe/Berlin",
    }
    # With a master of the user's own, nothing of ours is for one machine alone.
    assert session._defaults(configured_by_user()).keys() == {"spark.sql.session.timeZone"}


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MASTER", "yarn", {"spark.master": "yarn"}),
        ("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell", {"spark.master": "yarn"}),
        ("PYSPARK_SUBMIT_ARGS", "--master=yarn pyspark-shell", {"spark.master": "yarn"}),
        ("PYSPARK_SUBMIT_ARGS", "--conf=spark.master=yarn pyspark-shell", {"spark.master": "yarn"}),
        ("PYSPARK_SUBMIT_ARGS", "--driver-memory 6g pyspark-shell", {"spark.driver.memory": "6g"}),
        (
            "PYSPARK_SUBMIT_ARGS",
            "--conf spark.master=yarn --conf 'spark.app.name=a b' pyspark-shell",
            {"spark.master": "yarn", "spark.app.name": "a b"},
        ),
    ],
)
def test_variables_hold(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: dict[str, str]) -> None:
    monkeypatch.setenv(variable, value)
    assert configured_by_user() == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("spark.a b c", {"spark.a": "b c"}),
        ("  spark.a\tb  ", {"spark.a": "b"}),
        ("spark.a=b=c", {"spark.a": "b=c"}),
        ("spark.a", {}),
        ("#spark.a b", {}),
    ],
)
def test_line_of_defaults_is_parsed(line: str, expected: dict[str, str]) -> None:
    assert parse_defaults(line) == expected


def test_java_options_of_the_user_follow_ours(nothing_configured: Path) -> None:
    (nothing_configured / "spark-defaults.conf").write_text("spark.driver.extraJavaOptions -Da=b -XX:+UseG1GC\n")
    options = session._defaults(configured_by_user())["spark.driver.extraJavaOptions"]
    assert options.startswith("-Dlog4j2.configurationFile=file:///")
    assert options.endswith(" -Da=b -XX:+UseG1GC")
    assert "UseSerialGC" not in options


def test_archive_in_an_odd_folder_is_one_option(tmp_path: Path) -> None:
    archive = tmp_path / 'my "own" projects' / "x.jsa"
    archive.parent.mkdir()
    archive.touch()
    first = re.match(r'"((?:[^"\\]|\\.)*)" ', class_archive_options(archive))
    assert first is not None
    assert re.sub(r"\\(.)", r"\1", first[1]) == f"-XX:SharedArchiveFile={archive}"
    # Java splits the name at a colon.
    odd = tmp_path / "a:b" / "x.jsa"
    odd.parent.mkdir()
    odd.touch()
    assert class_archive_options(odd) == ""


def test_java_unpacks_where_it_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By default, Java uses /tmp. It ignores TMPDIR."""
    usable = {str(tmp_path)}
    monkeypatch.setattr(session, "unpacking_problem", lambda folder: "" if folder in usable else f"{folder} is full")
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path))
    options = session._defaults({})["spark.driver.extraJavaOptions"]
    assert f'"-Djava.io.tmpdir={tmp_path}"' in options
    options = session._defaults({"spark.master": "yarn", "spark.driver.extraJavaOptions": "-Dmine=1"})
    assert options["spark.driver.extraJavaOptions"] == f'"-Djava.io.tmpdir={tmp_path}" -Dmine=1'
    # The last one holds, and it may have blanks.
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Djava.io.tmpdir=/nowhere")
    usable.add("/data/my tmp")
    session._defaults({"spark.driver.extraJavaOptions": '"-Djava.io.tmpdir=/data/my tmp"'})
    monkeypatch.delenv("JDK_JAVA_OPTIONS")
    usable.add("/tmp")
    assert "java.io.tmpdir" not in session._defaults({})["spark.driver.extraJavaOptions"]


@pytest.mark.parametrize("variable", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_folder_that_the_user_chose_for_java_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, f"-Xmx1g -Djava.io.tmpdir={tmp_path}/missing")
    with pytest.raises(HostError, match=f"cannot unpack its libraries: {tmp_path}/missing cannot be used"):
        session._defaults({})
