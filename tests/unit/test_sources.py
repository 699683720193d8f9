"""The settings of sources: each format takes its own, refuses those of the others by name, and has one opener."""

import re
from typing import get_args

import pytest
from pydantic import ValidationError

from cnnlib.config import AnySource, IngestSettings, ScoreInputSettings, ScoreSettings, SourceFormat, SourceSettings
from cnnlib.errors import ConfigError
from jobs.settings import parse_settings
from pipelines.sources import SOURCES

FORMATS = {kind.model_fields["format"].default: kind for kind in get_args(AnySource)}
# A value, other than the default, for every setting.
VALUES = {
    "path": "photos",
    "labels": "none",
    "label_column": "breed",
    "label_pattern": "([^/]+)/[^/]+$",
    "split_column": "part",
    "group_column": "patient",
    "path_column": "file",
    "content_column": "bytes",
    "encoding": "cp1252",
    "join_spellings": True,
    "layout": "classes",
}
SETTINGS = {name: {setting for setting in VALUES if setting in kind.model_fields} for name, kind in FORMATS.items()}
OWN = [(name, setting) for name, settings in SETTINGS.items() for setting in sorted(settings)]
FOREIGN = [(name, setting) for name, settings in SETTINGS.items() for setting in VALUES if setting not in settings]


def given_to(name: str, *settings: str) -> dict[str, str]:
    """Values of the settings that a format needs, and of more."""
    needed = {"path"} & SETTINGS[name]
    return {"format": name} | {setting: VALUES[setting] for setting in (*needed, *settings)}


def options(values: dict[str, str], section: str = "source") -> list[str]:
    return [part for name, value in values.items() for part in (f"--{section}.{name}", str(value))]


def refusal_of(*arguments: str, job: type = IngestSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings("job", job, [*arguments, "--output.path", "out"])
    assert "\n" not in caught.value.message
    assert caught.value.exit_status == 2
    return caught.value.message


def test_every_format_has_one_opener_and_one_choice():
    assert list(SOURCES) == list(FORMATS) == list(get_args(SourceFormat))


def test_every_setting_of_every_format_is_known():
    of_formats = {"format"} | {setting for kind in FORMATS.values() for setting in kind.model_fields}
    assert of_formats == SourceSettings.model_fields.keys() == {"format", *VALUES}


# --- its own settings


@pytest.mark.parametrize(("name", "setting"), OWN)
def test_format_takes_its_own_settings(name, setting):
    values = given_to(name, setting)
    parsed = parse_settings("ingest", IngestSettings, [*options(values), "--output.path", "out"]).source
    assert parsed == SourceSettings(**values)
    assert type(parsed.for_format()) is FORMATS[name]
    assert parsed.for_format().model_dump(exclude_unset=True).items() >= values.items()


# --- those of others


@pytest.mark.parametrize(("name", "setting"), FOREIGN)
def test_option_of_another_format_is_refused_by_name(name, setting):
    message = refusal_of(*options(given_to(name, setting)))
    owners = ", ".join(owner for owner in FORMATS if setting in SETTINGS[owner])
    assert message == (
        f"source.{setting}: this is a setting of format {owners}; with format {name} leave it out, "
        f"received {VALUES[setting]}"
    )


@pytest.mark.parametrize(("name", "setting"), FOREIGN)
def test_key_of_another_format_is_refused_in_yaml(name, setting, tmp_path):
    lines = [f"  {key}: {value!r}" for key, value in given_to(name, setting).items()]
    (tmp_path / "ingest.yaml").write_text("\n".join(["source:", *lines]))
    message = refusal_of("--config", str(tmp_path / "ingest.yaml"))
    assert message.startswith(f"source.{setting}: this is a setting of format ")
    assert f"with format {name} leave it out" in message


@pytest.mark.parametrize(("name", "setting"), FOREIGN)
def test_argument_of_another_format_is_refused_in_python(name, setting):
    for build in (SourceSettings, lambda **values: IngestSettings(source=values, output={"path": "out"})):
        with pytest.raises(ValidationError, match=f"with format {name} leave it out") as caught:
            build(**given_to(name, setting))
        (error,) = caught.value.errors()
        assert error["loc"][-1] == setting


def test_another_format_over_a_file_refuses_the_settings_of_the_first(tmp_path):
    (tmp_path / "ingest.yaml").write_text("source: {format: table, path: main.photos, content_column: breed}")
    over = ["--config", str(tmp_path / "ingest.yaml"), "--source.format", "manifest"]
    assert refusal_of(*over).startswith(
        "source.content_column: this is a setting of format table; with format manifest"
    )
    parsed = parse_settings(
        "ingest", IngestSettings, [*over, "--source.content_column", "content", "--output.path", "out"]
    )
    assert parsed.source == SourceSettings(format="manifest", path="main.photos")


# --- missing, and unknown


@pytest.mark.parametrize("name", [name for name in FORMATS if "path" in SETTINGS[name]])
def test_missing_path_is_refused(name):
    assert refusal_of("--source.format", name) == (
        f"source.path: format {name} needs this setting; name what to read, received None"
    )
    with pytest.raises(ValidationError, match="name what to read"):
        SourceSettings(format=name)


def test_unknown_setting_gets_the_nearest_name():
    assert refusal_of("--source.format", "mnist", "--source.label", "none").endswith("did you mean source.labels?")


# --- help


def test_help_says_which_format_has_which_setting(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "900")
    with pytest.raises(SystemExit):
        parse_settings("ingest", IngestSettings, ["--help"])
    # From the last heading on: before it, the usage line has all options.
    shown = re.sub(r"\s+", " ", capsys.readouterr().out.rpartition("Where the images come from:")[2])
    for name, kind in FORMATS.items():
        assert f"{name}: {kind.__doc__.rstrip('.')}" in shown
    for setting, field in SourceSettings.model_fields.items():
        owners = [name for name in FORMATS if setting in FORMATS[name].model_fields]
        assert field.description in shown
        if len(owners) < len(FORMATS):
            others = [name for name in FORMATS if name not in owners]
            said = ", ".join(owners) if len(owners) < len(others) else f"all formats but {', '.join(others)}"
            assert field.description.startswith(f"{said}: ")


# --- as the input of score


@pytest.mark.parametrize("name", FORMATS)
def test_score_reads_every_format_without_labels(name):
    values = {"format": name, "path": "photos"}
    arguments = ["--model", "models:/m@champion", *options(values, "input"), "--output.path", "out"]
    source = parse_settings("score", ScoreSettings, arguments).input.as_source()
    # The path of an earlier set may still be there; MNIST does not use it.
    assert source == SourceSettings(format=name, labels="none", path=None if name == "mnist" else "photos")


def test_score_refuses_a_source_without_its_path():
    message = refusal_of("--model", "m", "--input.format", "idx", job=ScoreSettings)
    assert message == "input.path: format idx needs this setting; name what to read, received None"
    assert ScoreInputSettings().path is None
