"""Ingest again: an existing set is compared by the settings that decide what is written, whatever version made it."""

import json

import numpy as np
import pytest

from cnnlib.config import IngestSettings
from cnnlib.errors import OutputExistsError
from cnnlib.image_set.contract import COMMIT
from cnnlib.storage.folder import open_folder
from pipelines.ingest.earlier_set import described, earlier_set
from tests.unit.image_sets import write_image_set

# What an earlier version kept of every source, whatever its format.
ALL_KEYS = {
    "path": None,
    "labels": "given",
    "label_column": "label",
    "label_pattern": None,
    "split_column": None,
    "group_column": None,
}


@pytest.fixture
def folder(tmp_path):
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    return write_image_set(tmp_path / "set", images, [0, 1], ["train", "val"], classes=("a", "b"), files=1).folder


def ask(folder, **source):
    return IngestSettings(source=source, output={"path": folder.uri})


def keep_source(folder, settings, source):
    """Have the set say that it was made with these settings, but of `source`."""
    content = json.loads(folder.fs.cat_file(folder.path(COMMIT)))
    content["settings"] = described(settings) | {"source": source}
    folder.fs.pipe_file(folder.path(COMMIT), json.dumps(content).encode())


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        pytest.param({"format": "mnist"}, ALL_KEYS | {"format": "mnist"}, id="mnist-with-all-keys"),
        pytest.param({"format": "mnist"}, {"format": "mnist"}, id="mnist-without-defaults"),
        pytest.param({"format": "mnist"}, ALL_KEYS | {"format": "mnist", "path": "unused"}, id="mnist-with-a-path"),
        pytest.param(
            {"format": "table", "path": "main.photos", "group_column": "patient"},
            ALL_KEYS | {"format": "table", "path": "main.photos", "group_column": "patient"},
            id="table-with-all-keys",
        ),
        pytest.param(
            {"format": "table", "path": "main.photos", "labels": "none"},
            {"format": "table", "path": "main.photos", "labels": "none"},
            id="table-without-defaults",
        ),
        # Earlier versions took settings of another format, and ignored them.
        pytest.param(
            {"format": "idx", "path": "/digits"},
            ALL_KEYS | {"format": "idx", "path": "/digits", "label_column": "breed", "split_column": "part"},
            id="idx-with-columns-of-a-table",
        ),
    ],
)
def test_set_of_another_version_is_the_same(folder, asked, kept):
    settings = ask(folder, **asked)
    keep_source(folder, settings, kept)
    assert earlier_set(folder, settings).folder == open_folder(folder.uri)


@pytest.mark.parametrize(
    ("asked", "kept", "says"),
    [
        pytest.param(
            {"format": "table", "path": "t"},
            {"format": "table", "path": "t", "label_column": "breed"},
            "made with source.label_column=breed, not label;",
            id="own-setting",
        ),
        pytest.param(
            {"format": "table", "path": "t", "split_column": "part"},
            {"format": "table", "path": "t"},
            "made with source.split_column=None, not part;",
            id="own-setting-that-was-missing",
        ),
        pytest.param(
            {"format": "idx", "path": "/a"}, {"format": "cifar", "path": "/a"}, "format=cifar, not", id="format"
        ),
        pytest.param(
            {"format": "idx", "path": "/a"}, {"format": "idx", "path": "/b"}, "source.path=/b, not /a;", id="path"
        ),
        # A later version may have settings and formats that this one does not know.
        pytest.param(
            {"format": "idx", "path": "/a"}, {"format": "idx", "path": "/a", "depth": 3}, "source.depth=3", id="unknown"
        ),
        pytest.param({"format": "mnist"}, {"format": "zip", "path": "/a"}, "source.format=zip, not mnist", id="zip"),
    ],
)
def test_set_of_other_source_settings_is_refused(folder, asked, kept, says):
    settings = ask(folder, **asked)
    keep_source(folder, settings, kept)
    with pytest.raises(OutputExistsError, match=says):
        earlier_set(folder, settings)


def test_every_key_is_kept_as_earlier_versions_did(folder):
    # An earlier version compares them all.
    source = described(ask(folder, format="idx", path="/digits"))["source"]
    assert source.items() >= (ALL_KEYS | {"format": "idx", "path": "/digits"}).items()
