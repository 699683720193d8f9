"""Build a SparkSession (no other module does), change its settings, and send folders to its executors."""

import atexit
import os
import pwd
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from weakref import WeakKeyDictionary

from pyspark import SparkConf, SparkContext
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

import cnnlib
from cnnlib.errors import HostError
from pipelines.spark.prerequisites import java_problem, unpacking_problem

# Rows in an Arrow batch between the JVM and Python: many enough for little overhead, few enough for large images.
ROWS_PER_ARROW_BATCH = 256

# Names of the folders that executors already have, by the application or the Spark Connect session that sent them.
_SHIPPED: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()

# `pipelines.class_archive` makes this file. Java ignores it if it was made by another Java or for another Spark.
CLASS_ARCHIVE = Path(sys.prefix) / "share" / "sparkcnn" / "spark-classes.jsa"

# Arguments of spark-submit that set what a setting would.
_ARGUMENTS = {"--master": "spark.master", "--driver-memory": "spark.driver.memory"}

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
_TEMPORARY = "-Djava.io.tmpdir="

# If the system has no name for a user id, the first of these variables that is set names the user.
_USER_VARIABLES = ("HADOOP_USER_NAME", "SPARK_USER", "LOGNAME", "USER")

_SESSION_DEFAULTS = {"spark.sql.session.timeZone": "UTC"}


def spark_session(app_name: str = "sparkcnn", **options: str) -> SparkSession:
    """Return the active session, for example a notebook's, or build one.

    `options` are Spark settings under their own names. If SPARK_REMOTE names a Spark Connect server, the session is one
    of that server, which must have this project installed. Without a master from spark-submit or from the options,
    Spark runs in this process on all cores, and listens on the loopback interface only.

    Raises HostError if Java is missing or too old, or if Spark cannot start, for example because a port is taken.

    Example::

        spark = spark_session(**{"spark.master": "local[2]", "spark.driver.memory": "4g"})
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    over_connect = "SPARK_REMOTE" in os.environ and "spark.master" not in options
    problem = "" if over_connect else java_problem()
    if problem:
        raise HostError(problem)
    configured = {} if over_connect else configured_by_user()
    # Executors must run this Python. Another one may lack the project, or have other versions of packages.
    if "spark.pyspark.python" not in configured:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    _use_utf8()
    builder = SparkSession.builder.appName(app_name)
    defaults = _SESSION_DEFAULTS if over_connect else _defaults(configured | options)
    # What the user has configured holds.
    settings = {name: value for name, value in defaults.items() if name not in configured} | options
    if _JAVA_OPTIONS in defaults:  # these hold the user's own too
        settings[_JAVA_OPTIONS] = defaults[_JAVA_OPTIONS]
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        if not over_connect:
            _log_in(settings, configured.get(_JAVA_OPTIONS, ""))
        session = builder.getOrCreate()
    except Exception as error:
        raise HostError(f"Spark did not start: {root_cause(error)}") from error
    if is_classic(session):
        session.sparkContext.setLogLevel("ERROR")
        _ship_own_wheel(session)
    return session


def _log_in(settings: Mapping[str, str], java_options: str) -> None:
    """Start Java, and log in to Hadoop's libraries there, if the system has no name for this user, as in a container.

    Hadoop would ask the system for the name, and fail. `java_options` are those that the user has configured; they hold
    if the settings have none.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        name = next((os.environ[key] for key in _USER_VARIABLES if os.environ.get(key)), str(os.getuid()))
        os.environ.setdefault("SPARK_USER", name)
        home = os.environ.get("HOME", "")
        folder = home if os.path.isabs(home) and os.access(home, os.W_OK) else tempfile.gettempdir()
        # Java would call both "?".
        named = f"{quoted(f'-Duser.name={name}')} {quoted(f'-Duser.home={folder}')}"
        conf = SparkConf().setAll(list(settings.items()))
        conf.set(_JAVA_OPTIONS, f"{named} {settings.get(_JAVA_OPTIONS, java_options)}".rstrip())
        SparkContext._ensure_initialized(conf=conf)
        java = SparkContext._jvm
        assert java is not None  # it has just started
        users = java.org.apache.hadoop.security.UserGroupInformation
        users.setLoginUser(users.createRemoteUser(name))


def _use_utf8() -> None:
    """Let Java read names of files as Python does: in UTF-8, also where the locale is C or POSIX."""
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C")
    if not re.search(r"utf-?8", locale, re.IGNORECASE):
        os.environ["LC_ALL"] = "C.UTF-8"


def is_classic(spark: SparkSession) -> bool:
    """Return whether a session has a JVM that this process can call. A session of Spark Connect has none."""
    return hasattr(spark, "_jsparkSession")


@contextmanager
def job_session(app_name: str) -> Iterator[SparkSession]:
    """Give a session for the body, and stop it afterwards unless it existed before, as in a notebook."""
    given = SparkSession.getActiveSession()
    session = spark_session(app_name)
    try:
        yield session
    except KeyboardInterrupt:
        if is_classic(session):
            # Tasks that are cancelled while Spark stops would each write a stack trace.
            session.sparkContext.setLogLevel("OFF")
        raise
    finally:
        if given is None:
            session.stop()


def _defaults(chosen: dict[str, str]) -> dict[str, str]:
    """Return our default settings: only the time zone if spark-submit, the user or the caller has chosen a master."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started Java
        return _SESSION_DEFAULTS
    given = chosen.get(_JAVA_OPTIONS, "")
    temporary = _temporary_folder(given)
    if "spark.master" in chosen:
        return _SESSION_DEFAULTS | ({_JAVA_OPTIONS: f"{temporary} {given}".rstrip()} if temporary else {})
    # As a URI, because Java splits options at blanks, and Log4j splits names at commas.
    log_settings = Path(str(files("pipelines.spark").joinpath("log4j2.properties"))).as_uri()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return _SESSION_DEFAULTS | {
        "spark.master": "local[*]",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        _JAVA_OPTIONS: f"-Dlog4j2.configurationFile={log_settings} {temporary} {_java_options(given)}",
    }


def _temporary_folder(given: str) -> str:
    """Return the Java option that names a folder for Java's libraries, or "" if Java's own choice is good.

    Java takes /tmp, whatever TMPDIR says. Raises HostError if neither can be used, or if the folder that the user has
    chosen cannot.
    """
    # Java takes the last of these.
    sources = [os.environ.get("JAVA_TOOL_OPTIONS", ""), os.environ.get("JDK_JAVA_OPTIONS", ""), given]
    chosen = [
        option.removeprefix(_TEMPORARY) for text in sources for option in _split(text) if option.startswith(_TEMPORARY)
    ]
    problem = unpacking_problem(chosen[-1] if chosen else "/tmp")
    if not problem:
        return ""
    other = tempfile.gettempdir()
    if not chosen and not unpacking_problem(other):
        return quoted(f"{_TEMPORARY}{other}")
    raise HostError(
        f"Java cannot unpack its libraries: {problem}; name a folder that can be written and whose programs may run, "
        f"e.g. JAVA_TOOL_OPTIONS={_TEMPORARY}/var/tmp"
    )


def _split(options: str) -> list[str]:
    """Split Java options at blanks outside quotes."""
    try:
        return shlex.split(options)
    except ValueError:  # a quote is missing, which Java will say
        return options.split()


def configured_by_user() -> dict[str, str]:
    """Return the Spark settings that hold without us: of spark-defaults.conf, PYSPARK_SUBMIT_ARGS and MASTER.

    Settings of a session override those of the file, so the session must leave them out.
    """
    found: dict[str, str] = {}
    if os.environ.get("MASTER"):
        found["spark.master"] = os.environ["MASTER"]
    folder = os.environ.get("SPARK_CONF_DIR") or os.path.join(_find_spark_home(), "conf")
    with suppress(OSError):
        found |= parse_defaults(Path(folder, "spark-defaults.conf").read_text("utf-8", "replace"))
    return found | _submit_arguments(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))


def _submit_arguments(text: str) -> dict[str, str]:
    """Return the settings in arguments of spark-submit, each of which may be --NAME VALUE or --NAME=VALUE.

    >>> _submit_arguments("--master=yarn --conf spark.app.name=mine pyspark-shell")
    {'spark.master': 'yarn', 'spark.app.name': 'mine'}
    """
    try:
        given = shlex.split(text)
    except ValueError as error:
        raise HostError(f"PYSPARK_SUBMIT_ARGS={text} cannot be split: {error}; correct its quotes") from error
    parts = [part for one in given for part in (one.split("=", 1) if one.startswith("--") else [one])]
    found: dict[str, str] = {}
    for name, value in zip(parts, parts[1:], strict=False):
        if name in _ARGUMENTS:
            found[_ARGUMENTS[name]] = value
        elif name in ("--conf", "-c"):
            setting, _, setting_value = value.partition("=")
            found[setting] = setting_value
        elif name == "--properties-file":
            with suppress(OSError):
                found = parse_defaults(Path(value).read_text("utf-8", "replace")) | found
    return found


def parse_defaults(text: str) -> dict[str, str]:
    """Parse the lines of spark-defaults.conf: a name, then a blank, = or :, then a value.

    >>> parse_defaults("# ours\\nspark.master   yarn\\nspark.driver.memory=8g\\n")
    {'spark.master': 'yarn', 'spark.driver.memory': '8g'}
    """
    lines = (re.match(r"\s*(spark\.[^\s=:]+)\s*[\s=:]\s*(.*?)\s*$", line) for line in text.splitlines())
    return {line[1]: line[2] for line in lines if line}


def _java_options(given: str) -> str:
    """Return Java options for jobs of seconds or minutes, and then those that the user gives, which win.

    The JVM mostly plans there, so the threads of a full compiler and collector would only take cores from the images.
    """
    everywhere = " ".join(os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"))
    # Java does not start if two collectors are chosen.
    collector = "" if re.search(r"-XX:\+Use\w+GC", f"{everywhere} {given}") else " -XX:+UseSerialGC"
    return f"-XX:TieredStopAtLevel=1{collector} {class_archive_options()} {given}".rstrip()


def class_archive_options(archive: Path = CLASS_ARCHIVE) -> str:
    """Return the Java options that map an archive of Spark's classes, or "" if there is no such file.

    >>> class_archive_options(Path("nowhere.jsa"))
    ''
    """
    # Java splits the name of an archive at a colon.
    if not archive.is_file() or ":" in str(archive):
        return ""
    # Without the -Xlog options, Java would warn at every start about an archive that does not fit.
    return f"{quoted(f'-XX:SharedArchiveFile={archive}')} -Xlog:cds=off -Xlog:cds+dynamic=off"


def quoted(option: str) -> str:
    r"""Quote a Java option for Spark, which splits its options at blanks.

    >>> print(quoted("-Dfile=my \"own\" file"))
    "-Dfile=my \"own\" file"
    """
    escaped = option.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ship_own_wheel(session: SparkSession) -> None:
    """Send this project to the executors if spark-submit got it as a wheel.

    `--py-files` takes a wheel to the driver, but the Python of executors imports only from .zip, .egg and .jar files.
    """
    wheel = Path(cnnlib.__file__).parents[1]
    if wheel.suffix != ".whl":
        return
    session.sparkContext.addPyFile(shutil.copy(wheel, f"{_folder_until_exit()}/sparkcnn.zip"))


def ship_folder(spark: SparkSession, folder: Path, name: str) -> str:
    """Send a folder to every executor, once per session. Returns the name by which `SparkFiles.get` finds it there."""
    shipped = _SHIPPED.setdefault(spark.sparkContext if is_classic(spark) else spark, set())
    if name not in shipped:
        archive = f"{_folder_until_exit()}/{name}.zip"
        # Not compressed: weights hardly shrink, and compressing those of ResNet-152 took 16 s.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stored:
            for path in sorted(folder.rglob("*")):
                stored.write(path, path.relative_to(folder))
        if is_classic(spark):
            spark.sparkContext.addArchive(archive)
        else:
            spark.addArtifacts(archive, archive=True)
        shipped.add(name)
    return f"{name}.zip"


@contextmanager
def with_settings(spark: SparkSession, settings: dict[str, str]) -> Iterator[None]:
    """Change Spark SQL settings of the caller's session for the body, and then restore them."""
    before = {name: spark.conf.get(name, None) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, earlier)


def _folder_until_exit() -> str:
    """Create a folder that is kept until this process ends, because a new executor may fetch its files at any time."""
    folder = tempfile.mkdtemp(prefix="sparkcnn-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def root_cause(error: BaseException) -> str:
    """Return the line of Spark's stack traces that names the first cause.

    >>> root_cause(Exception("Job aborted\\n\\tat A.java\\nCaused by: java.io.IOException: disk full"))
    'Caused by: java.io.IOException: disk full'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Exception:" in line or "Error:" in line]
    return (causes or lines or [type(error).__name__])[-1].lstrip(": ")
