"""The settings of every source format: what ingest and score read."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from cnnlib.config.settings import Settings

_Labels = Annotated[
    Literal["given", "none"],
    Field(description="none takes images without labels, for scoring; with given, an image without one is a reject"),
]


_JoinSpellings = Annotated[
    bool,
    Field(
        description="all formats but mnist, idx, cifar: make one class of names that differ only in case, in blanks, "
        "or in how accents are stored; it is called like the first of them in order"
    ),
]
FolderNames = Literal["auto", "classes", "splits"]
_Layout = Annotated[
    FolderNames,
    Field(
        description="image_folder, webdataset: what the folders in DIR are: classes; or splits with classes below, "
        "called train, val or test, or another usual name of these; auto decides by their names, and refuses what is "
        "not certain"
    ),
]


class MnistSource(Settings):
    """MNIST, which comes with sparkcnn and needs no path."""

    format: Literal["mnist"] = "mnist"
    labels: _Labels = "given"


class _SourceAtPath(Settings):
    """The settings of all formats that read files or a table."""

    format: str
    path: str = Field(
        description="all formats but mnist: folder, file or table, as a path or any URI that Spark's file systems know"
    )
    labels: _Labels = "given"


class IdxSource(_SourceAtPath):
    """MNIST's own format: a folder of IDX files."""

    format: Literal["idx"] = "idx"


class CifarSource(_SourceAtPath):
    """A folder of CIFAR's binary files."""

    format: Literal["cifar"] = "cifar"


class ImageFolderSource(_SourceAtPath):
    """Image files in DIR/CLASS/** or DIR/{train,val,test}/CLASS/**."""

    format: Literal["image_folder"] = "image_folder"
    layout: _Layout = "auto"
    join_spellings: _JoinSpellings = False


class _SourceWithColumns(_SourceAtPath):
    """The settings of formats that describe each image in a row."""

    join_spellings: _JoinSpellings = False
    path_column: str = Field("path", description="manifest, table: column of the path")
    label_column: str = Field("label", description="manifest, table: column of the label")
    split_column: str | None = Field(
        None,
        description="manifest, table: column with train, val, test or another usual name of these, or null; for null, "
        "a manifest's own column split is taken if it has one",
    )
    group_column: str | None = Field(
        None,
        description="manifest, table: column of the group; images of one group stay in one split, e.g. those of a "
        "patient; for null, a manifest's own column group is taken if it has one",
    )


class ManifestSource(_SourceWithColumns):
    """A CSV, JSON or Parquet file with columns path and label, and optionally split and group."""

    format: Literal["manifest"] = "manifest"
    encoding: str | None = Field(
        None, description="manifest: encoding of a CSV or JSON file, e.g. cp1252; null is UTF-8, or what its mark says"
    )


class TableSource(_SourceWithColumns):
    """A Spark table, or Parquet files, with columns path and content, and a label."""

    format: Literal["table"] = "table"
    content_column: str = Field("content", description="table: column of the bytes of the image file")
    label_pattern: str | None = Field(
        None,
        description="table: regular expression to find the label in the path, instead of label_column; the label is "
        "its first group",
    )

    @field_validator("label_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"label_pattern is not a regular expression: {error}") from error
            if not groups:
                raise ValueError("label_pattern needs a group in parentheses, e.g. ([^/]+)/[^/]+$")
        return pattern


class WebdatasetSource(_SourceAtPath):
    """A folder of tar shards with images and their labels."""

    format: Literal["webdataset"] = "webdataset"
    layout: _Layout = "auto"
    join_spellings: _JoinSpellings = False


# The one list of formats. The field `format` tells them apart, and its values are the names of the formats.
AnySource = MnistSource | IdxSource | CifarSource | ImageFolderSource | ManifestSource | TableSource | WebdatasetSource
_SECTIONS: dict[str, type[Settings]] = {kind.model_fields["format"].default: kind for kind in get_args(AnySource)}

if TYPE_CHECKING:  # mypy does not know a Literal that is made at run time
    SourceFormat = str
else:
    SourceFormat = Literal[tuple(_SECTIONS)]


class SourceSettings(TableSource, ManifestSource, ImageFolderSource):
    """Where the images come from.

    The command line and YAML files know one section `source`, so this class has the settings of all formats: it
    inherits from each format that has settings of its own. A setting of another format is refused by its name.

    >>> SourceSettings(format="image_folder", path="photos").for_format()
    ImageFolderSource(format='image_folder', path='photos', labels='given', layout='auto', join_spellings=False)
    >>> SourceSettings(format="image_folder", path="photos", label_column="breed")
    Traceback (most recent call last):
      ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for SourceSettings
    label_column
      Value error, this is a setting of format manifest, table; with format image_folder leave it out ...
    """

    format: SourceFormat = Field(  # type: ignore[assignment]
        description="; ".join(f"{name}: {(kind.__doc__ or '').rstrip('.')}" for name, kind in _SECTIONS.items())
    )
    path: str | None = Field(  # type: ignore[assignment]
        None, validate_default=True, description=_SourceAtPath.model_fields["path"].description
    )

    @field_validator("*")
    @classmethod
    def _belongs_to_the_format(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        chosen = _SECTIONS.get(info.data.get("format", ""))
        if chosen is None:  # this is `format` itself, or it was refused
            return value
        setting = chosen.model_fields.get(name)
        # The command line gives every setting, so one with its default value counts as left out.
        if value != cls.model_fields[name].default:
            if setting is None:
                owners = [format for format, kind in _SECTIONS.items() if name in kind.model_fields]
                raise ValueError(
                    f"this is a setting of format {', '.join(owners)}; with format {info.data['format']} leave it out"
                )
        elif setting is not None and setting.is_required():
            raise ValueError(f"format {info.data['format']} needs this setting; name what to read")
        return value

    def for_format(self) -> AnySource:
        """Return the settings of this source's own format, without those of the others."""
        kind = _SECTIONS[self.format]
        return kind(**{name: getattr(self, name) for name in kind.model_fields})  # type: ignore[return-value]


def own_source_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source that count for its format, with defaults for those that are missing.

    `values` may come from another version of sparkcnn, which kept settings of other formats too. A setting or format
    that this version does not know stays.

    >>> own_source_settings({"format": "idx", "path": "digits", "label_column": "breed"})
    {'format': 'idx', 'labels': 'given', 'path': 'digits'}
    """
    kind = _SECTIONS.get(values.get("format", ""))
    if kind is None:
        return values
    defaults = {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}
    ignored = SourceSettings.model_fields.keys() - kind.model_fields.keys()
    return defaults | {name: value for name, value in values.items() if name not in ignored}
