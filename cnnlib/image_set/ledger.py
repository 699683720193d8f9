"""The ledger of an image set: a row for every image that ingest found, and what became of it.

A task writes its rows when it has decoded its images. What needs to know all images (which is whose duplicate, which
split it belongs to) is decided on the ledger alone, and stands in its last columns. Everything that holds for a set as
a whole (counts, statistics, fingerprint, the report) is a sum over its ledger, and a later ingest of a changed source
decodes only the files whose version it does not have.
"""

import pyarrow as pa

from cnnlib.image_set.contract import CODE, IMAGE_ID, LABEL, MESSAGE, PATH, SIZE_BYTES

LEDGER = "ledger"
# Beside it, the files of the source: what changes when a file does, and how many images it has.
FILES = "files"
VERSION = "version"
IMAGES = "images"

# The file of the source that an image came in.
FILE = "file"
# SHA-256 of the pixels as the model sees them, in hexadecimal digits.
PIXEL_ID = "pixel_id"
CLASS_NAME = "class_name"
GROUP = "group_name"
GIVEN_SPLIT = "given_split"
# Of the image before resizing, upright; in pixels.
HEIGHT = "height"
WIDTH = "width"
PERCEPTUAL_HASH = "perceptual_hash"
# A channel each, over the pixels as stored.
CHANNEL_SUMS = "channel_sums"
CHANNEL_SQUARE_SUMS = "channel_square_sums"
THUMBNAIL = "thumbnail"
# Where the pixels are: the data file, and the row in it; null for a reject. LABEL is the one in that row.
PART = "part"
ROW = "row"
# Decided when all images are known: one of the outcomes, the split (null unless kept), and whether images of other
# classes have the same pixels.
OUTCOME = "outcome"
SPLIT = "split"
CONFLICTING = "conflicting"

KEPT = "kept"
DUPLICATE = "duplicate"
REJECTED = "rejected"

SCHEMA = pa.schema(
    [
        (FILE, pa.string()),
        (PATH, pa.string()),
        (IMAGE_ID, pa.string()),
        (PIXEL_ID, pa.string()),
        (CLASS_NAME, pa.string()),
        (GROUP, pa.string()),
        (GIVEN_SPLIT, pa.string()),
        (SIZE_BYTES, pa.int64()),
        (HEIGHT, pa.int32()),
        (WIDTH, pa.int32()),
        (PERCEPTUAL_HASH, pa.int64()),
        (CHANNEL_SUMS, pa.list_(pa.int64())),
        (CHANNEL_SQUARE_SUMS, pa.list_(pa.int64())),
        (CODE, pa.string()),
        (MESSAGE, pa.string()),
        (THUMBNAIL, pa.binary()),
        (PART, pa.string()),
        (ROW, pa.int32()),
        (LABEL, pa.int32()),
        (OUTCOME, pa.string()),
        (SPLIT, pa.string()),
        (CONFLICTING, pa.bool_()),
    ]
)

FILES_SCHEMA = pa.schema([(FILE, pa.string()), (VERSION, pa.string()), (SIZE_BYTES, pa.int64()), (IMAGES, pa.int64())])
