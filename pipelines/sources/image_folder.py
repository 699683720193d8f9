"""Class folders: tasks list the files and read them."""

from collections.abc import Callable, Collection, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import ImageFolderSource
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.sources.image_folder import FolderLayout, find_layout
from cnnlib.sources.labels import label_order
from cnnlib.sources.left_out import HIDDEN, IN_NO_SPLIT, SYSTEM, count_kinds, in_words
from cnnlib.sources.spelling import Spelling
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import find_images, list_files, open_source_folder, read_files
from pipelines.sources.source import Entry, Images, Source, files_table, spread_over_tasks, table_of_files


def open_image_folder(spark: SparkSession, settings: ImageFolderSource, max_bytes: int) -> Source:
    """Open DIR/CLASS/** or DIR/SPLIT/CLASS/**.

    Raises SourceError if there are no images, or if it is not certain whether the folders in DIR are splits.
    """
    folder = open_source_folder(settings.path)
    images, left_out = find_images(spark, folder, list_files(spark, folder))
    labelled = settings.labels == "given"
    layout = find_layout((file.name for file in images), settings.layout, settings.path, labelled=labelled)
    left_out |= {file.name: IN_NO_SPLIT for file in images if layout.is_beside_splits(file.name)}
    images = [file for file in images if file.name not in left_out]
    counts = count_kinds(left_out.values())
    if not images:
        raise SourceError(
            f"source.path={folder.uri} has no images{f', but {in_words(counts)}' if counts else ''}; expected "
            "DIR/CLASS/** below it, with image files"
        )
    given = {class_name for file in images if (class_name := layout.class_and_split_of(file.name)[0]) is not None}
    spelling = Spelling.of(given, joined=settings.join_spellings) if labelled else Spelling()
    read = _reader(folder.uri, max_bytes, layout, labelled=labelled)
    files = files_table(
        {
            FILE: file.name,
            # Class and split belong to the version: if a folder is added beside them, splits may become classes.
            VERSION: " ".join([file.version, *map(str, layout.class_and_split_of(file.name))]),
            SIZE_BYTES: file.size_bytes,
            IMAGES: 1,
        }
        for file in images
    )
    sizes = files.select([FILE, SIZE_BYTES])
    return Source(
        files,
        label_order(spelling.classes),
        lambda names, tasks: spread_over_tasks(spark, table_of_files(sizes, names), tasks, read),
        gives_test=TEST in layout.splits.values(),
        left_out=counts,
        spelling=spelling,
        warnings=tuple(_lost_classes(layout, left_out, given)) if labelled else (),
    )


def _lost_classes(layout: FolderLayout, left_out: Mapping[str, str], classes: Collection[str]) -> Iterator[str]:
    """Warn of each class folder whose files are all left out."""
    of_class: dict[str, list[str]] = {}
    for name, why in left_out.items():
        class_name = layout.class_and_split_of(name)[0]
        if class_name is not None and class_name not in classes and why not in (HIDDEN, SYSTEM, IN_NO_SPLIT):
            of_class.setdefault(class_name, []).append(why)
    for class_name, reasons in sorted(of_class.items()):
        yield f"the folder {class_name} has no image, so it is no class: {in_words(count_kinds(reasons))} left out"


def unlabelled_images(
    spark: SparkSession, folder: Folder, files: Mapping[str, int], tasks: int, max_bytes: int
) -> Images:
    """Make images of files in a folder, without classes and splits.

    `files` has the bytes of each file, by its name relative to the folder.
    """
    schema = pa.schema([(FILE, pa.string()), (SIZE_BYTES, pa.int64())])
    table = pa.table([list(files), list(files.values())], schema=schema)
    return spread_over_tasks(spark, table, tasks, _reader(folder.uri, max_bytes, FolderLayout(), labelled=False))


def _reader(
    uri: str, max_bytes: int, layout: FolderLayout, *, labelled: bool
) -> Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]:
    """Return the function with which a task reads files of the folder at a URI."""

    def read(files: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)

        def described(file: Entry) -> Entry:
            name = file[FILE]
            class_name, split = layout.class_and_split_of(name)
            code, message = _problem(file[SIZE_BYTES], max_bytes) or (None, None)
            class_name = class_name if labelled else None
            return file | {PATH: name, CLASS_NAME: class_name, GIVEN_SPLIT: split, CODE: code, MESSAGE: message}

        return read_files(map(described, files), lambda entry: (opened.fs, opened.path(entry[FILE])), max_bytes)

    return read


def _problem(size_bytes: int, max_bytes: int) -> tuple[str, str] | None:
    """Return (code, message) if a file must not be read, else None."""
    if not size_bytes:
        return "empty_file", "the file has no bytes"
    if size_bytes > max_bytes:
        return "too_many_bytes", f"{size_bytes} bytes exceed the limit of {max_bytes}"
    return None
