"""Settings from the command line and YAML files: what overrides what, and one line for every mistake."""

import re

import pytest

from cnnlib.config import DemoSettings, IngestSettings, PromoteSettings, ScoreSettings, TrainSettings
from cnnlib.config.settings import fields_of
from cnnlib.errors import ConfigError
from jobs.catalogue import JOBS
from jobs.settings import parse_settings

INGEST = ["--source.format", "idx", "--source.path", "digits", "--output.path", "out"]
TRAIN = ["--data.path", "set"]


@pytest.fixture
def file(tmp_path):
    """Write a YAML file and give its path."""

    def write(text: str) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return str(path)

    return write


def message_of(kind, arguments, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings("job", kind, arguments, **options)
    assert "\n" not in caught.value.message
    return caught.value.message


# --- what overrides what

YAML = "train:\n  epochs: 7\n  seed: 5\ndata:\n  path: from-yaml\n"


def test_settings_have_their_defaults():
    assert parse_settings("train", TrainSettings, TRAIN) == TrainSettings(data={"path": "set"})


def test_yaml_overrides_defaults(file):
    settings = parse_settings("train", TrainSettings, ["--config", file(YAML)])
    assert (settings.train.epochs, settings.train.seed, settings.train.patience) == (7, 5, 3)
    assert settings.data.path == "from-yaml"


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_later_option_overrides_the_file(file, joined):
    arguments = ["--config", file(YAML), "--train.epochs", "9"]
    if joined:
        arguments = ["=".join(arguments[:2]), "=".join(arguments[2:])]
    settings = parse_settings("train", TrainSettings, arguments)
    assert (settings.train.epochs, settings.train.seed) == (9, 5)


def test_default_file_is_read_if_none_is_given(tmp_path):
    settings = parse_settings("demo", DemoSettings, ["--train.train.epochs", "1"], config_file="demo.yaml")
    assert (settings.train.train.epochs, settings.train.train.patience) == (1, 2)


def test_given_file_replaces_the_default_file(file):
    text = """
    ingest: {source: {format: mnist}, output: {path: a}}
    train: {data: {path: a}}
    score: {model: "models:/x@champion", output: {path: b}}
    """
    settings = parse_settings("demo", DemoSettings, ["--config", file(text)], config_file="demo.yaml")
    assert (settings.min_test_accuracy, settings.train.train.patience) == (0.985, 3)
    assert settings.ingest.output.path == "a"


@pytest.mark.parametrize(
    ("arguments", "section", "name", "value"),
    [
        (["--register.alias", "null"], "register", "alias", None),
        (["--model.options", "{activation: tanh}"], "model", "options", {"activation": "tanh"}),
        (["--optimizer.learning_rate", "1e-4"], "optimizer", "learning_rate", 1e-4),
        (["--data.path", "007"], "data", "path", "007"),
        (["--data.path", "a: b # c"], "data", "path", "a: b # c"),
        (["--tracking.uri", "databricks"], "tracking", "uri", "databricks"),
        (["--tracking.experiment", "no"], "tracking", "experiment", "no"),
    ],
)
def test_value_is_read_as_its_type(arguments, section, name, value):
    settings = parse_settings("train", TrainSettings, [*TRAIN, *arguments])
    assert getattr(getattr(settings, section), name) == value


def test_options_of_one_mapping_add_up_however_deep(file):
    text = file("model: {options: {head: {units: 8, bias: true}, activation: relu}}")
    options = ["--model.options.head.units", "9", "--model.options.head.rate=0.5", "--model.options.depth", "2"]
    settings = parse_settings("train", TrainSettings, ["--config", text, *TRAIN, *options])
    head = {"units": 9, "bias": True, "rate": 0.5}
    assert settings.model.options == {"head": head, "activation": "relu", "depth": 2}


# --- mistakes


@pytest.mark.parametrize(
    ("kind", "arguments", "names"),
    [
        pytest.param(TrainSettings, [], "data.path", id="missing"),
        pytest.param(IngestSettings, ["--source.format", "idx"], "output.path", id="missing-one-of-two"),
        pytest.param(TrainSettings, [*TRAIN, "--train.epochs", "many"], "train.epochs", id="text-for-a-number"),
        pytest.param(TrainSettings, [*TRAIN, "--train.epochs", "2.5"], "train.epochs", id="half-an-epoch"),
        pytest.param(TrainSettings, [*TRAIN, "--train.epochs", "0"], "train.epochs", id="too-small"),
        pytest.param(TrainSettings, [*TRAIN, "--train.epochs"], "train.epochs", id="no-value"),
        pytest.param(TrainSettings, [*TRAIN, "--train.workers", "-1"], "train.workers", id="fewer-than-none"),
        pytest.param(TrainSettings, [*TRAIN, "--train.gpus_per_worker", "1"], "workers", id="gpus-in-the-driver"),
        pytest.param(TrainSettings, [*TRAIN, "--train.ports", "80-90"], "ports", id="ports-of-the-system"),
        pytest.param(TrainSettings, [*TRAIN, "--train.ports", "9000"], "ports", id="no-range"),
        pytest.param(TrainSettings, [*TRAIN, "--optimizer.learning_rate", "-1"], "learning_rate", id="negative"),
        pytest.param(TrainSettings, [*TRAIN, "--model.name", "lenett"], "model.name", id="not-of-the-choice"),
        pytest.param(TrainSettings, [*TRAIN, "--model.options", "3"], "model.options", id="number-for-a-mapping"),
        pytest.param(IngestSettings, [*INGEST, "--source.format", "tar"], "source.format", id="unknown-format"),
        pytest.param(IngestSettings, [*INGEST, "--image.height", "-3"], "image.height", id="optional-too-small"),
        pytest.param(IngestSettings, [*INGEST, "--image.width", "0"], "image.width", id="optional-zero"),
        pytest.param(IngestSettings, [*INGEST, "--image.height", "tall"], "image.height", id="optional-text"),
        pytest.param(IngestSettings, [*INGEST, "--image.channels", "2"], "image.channels", id="optional-choice"),
        pytest.param(IngestSettings, [*INGEST, "--split.val_fraction", "1.5"], "split.val_fraction", id="above-1"),
        pytest.param(IngestSettings, [*INGEST, "--output.overwrite", "perhaps"], "output.overwrite", id="no-bool"),
        pytest.param(
            ScoreSettings, ["--model", "m", "--output.path", "p", "--input.split", "x"], "input.split", id="split"
        ),
    ],
)
def test_mistake_is_one_line_that_names_the_setting(kind, arguments, names):
    message = message_of(kind, arguments)
    assert names in message
    assert "http" not in message
    assert len(message) < 300


def test_message_shows_the_wrong_value():
    assert "many" in message_of(TrainSettings, [*TRAIN, "--train.epochs", "many"])


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("--train.epoch", "train.epochs"),
        ("--train.Epochs", "train.epochs"),
        ("--epochs", "epochs"),
        ("--optimiser.learning_rate", "optimizer.learning_rate"),
        ("--model.option", "model.options"),
        ("--traking.uri", "tracking.uri"),
    ],
)
def test_unknown_option_gets_the_nearest_as_hint(given, nearest):
    message = message_of(TrainSettings, [*TRAIN, given, "3"])
    assert given in message
    assert message.endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V20"])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (TrainSettings, [*TRAIN, "--register.alias"]),
        (PromoteSettings, ["--model", "photos", "--challenger", "2", "--alias"]),
    ],
)
def test_alias_that_means_a_version_is_refused(kind, arguments, alias):
    assert "MLflow does not allow latest, v1, v2 and so on as an alias" in message_of(kind, [*arguments, alias])


def test_option_like_no_other_points_to_help():
    assert message_of(TrainSettings, [*TRAIN, "--zzz", "3"]).endswith("see --help for all settings")


@pytest.mark.parametrize(
    ("text", "given", "nearest"),
    [
        ("train:\n  epoch: 3\n", "epoch", "epochs"),
        ("trian:\n  epochs: 3\n", "trian", "train.epochs"),
    ],
)
def test_unknown_key_of_a_file_gets_the_nearest_as_hint(file, text, given, nearest):
    message = message_of(TrainSettings, ["--config", file(text), *TRAIN])
    assert given in message
    assert message.endswith(f"did you mean {nearest}?")


def test_message_names_unknown_section_of_a_section(file):
    assert "option.activation" in message_of(
        TrainSettings, ["--config", file("model:\n  option: {activation: tanh}\n"), *TRAIN]
    )


def test_abbreviated_option_is_unknown():
    assert "--train.epo" in message_of(TrainSettings, [*TRAIN, "--train.epo", "3"])


def test_message_shows_a_stray_word():
    assert "stray" in message_of(TrainSettings, [*TRAIN, "stray"])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("train: {epochs: 3", id="broken-yaml"),
        pytest.param("- 1\n- 2\n", id="a-list"),
        pytest.param("just words\n", id="words"),
        pytest.param("", id="empty"),
        pytest.param("train:\n  epochs: many\n", id="wrong-type"),
        pytest.param("train: 3\n", id="number-for-a-section"),
    ],
)
def test_invalid_file_is_one_line(file, text):
    message_of(TrainSettings, ["--config", file(text), *TRAIN])


def test_message_names_the_missing_file():
    assert "/no/such.yaml" in message_of(TrainSettings, ["--config", "/no/such.yaml", *TRAIN])


# --- help


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_every_setting_with_its_default(job, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        parse_settings(job, JOBS[job].settings, ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    _, _, shown = shown.partition(JOBS[job].settings.__doc__.strip())
    for name, field in fields_of(JOBS[job].settings).items():
        # The explanation of a long option is on the line below it.
        (line,) = re.findall(rf"^ +--{re.escape(name)} (?:.*\(.*|.*\n .*)$", shown, re.MULTILINE)
        assert field.description in line
        default = "null" if field.default is None else field.default
        assert "(required" in line if field.is_required() else f"default: {default})" in line


def test_print_config_shows_the_resolved_settings(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_settings("train", TrainSettings, [*TRAIN, "--train.epochs", "9", "--print_config"])
    assert ended.value.code == 0
    assert "  epochs: 9\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "rollback"),
    [
        (["--rollback"], True),
        (["--rollback", "--reason", "complaints"], True),
        (["--rollback", "true"], True),
        (["--rollback=false", "--challenger", "8"], False),
    ],
)
def test_switch_may_stand_alone(arguments, rollback):
    settings = parse_settings("promote", PromoteSettings, ["--model", "digits", *arguments])
    assert settings.rollback is rollback


def test_version_is_text_whatever_it_looks_like():
    settings = parse_settings("promote", PromoteSettings, ["--model", "digits", "--challenger", "8"])
    assert settings.challenger == "8"


def test_promoting_and_rolling_back_at_once_is_refused():
    for arguments in ([], ["--rollback", "--challenger", "8"]):
        with pytest.raises(ConfigError, match="challenger and rollback: give one of them"):
            parse_settings("promote", PromoteSettings, ["--model", "digits", *arguments])
