"""The ledger of an image set: one row for every image that ingest found, which says what became of it.

A task writes its rows after it has decoded its images. Some decisions need all images: which images are duplicates, and
which split each belongs to. They are made on the ledger alone and stand in its last columns. Everything that describes
the whole set (counts, statistics, fingerprint, report) is a sum over its ledger. When the source has changed, a later
ingest decodes only files whose version the set does not have yet.
"""

import pyarrow as pa

from cnnlib.image_set.contract import CODE, IMAGE_ID, LABEL, MESSAGE, PATH, SIZE_BYTES

LEDGER = "ledger"
# A folder beside the ledger. It has the source's files, each with a version that changes when the file does, and with
# its number of images.
FILES = "files"
VERSION = "version"
IMAGES = "images"

# The file of the source that has the image.
FILE = "file"
# SHA-256 of the pixels as the model sees them, in hexadecimal digits.
PIXEL_ID = "pixel_id"
CLASS_NAME = "class_name"
# The class name as the source spells it, see `cnnlib.sources.spelling`.
SPELLED = "spelled"
GROUP = "group_name"
GIVEN_SPLIT = "given_split"
# Size in pixels of the upright image before resizing.
HEIGHT = "height"
WIDTH = "width"
PERCEPTUAL_HASH = "perceptual_hash"
# One number per channel, over the pixels as stored.
CHANNEL_SUMS = "channel_sums"
CHANNEL_SQUARE_SUMS = "channel_square_sums"
THUMBNAIL = "thumbnail"
# Whether the end of the file is missing, and what was there was taken.
TRUNCATED = "truncated"
# The location of the pixels: the part file and the row in it; null for a reject. LABEL is the label in that row.
PART = "part"
ROW = "row"
# Decided when all images are known: the outcome (kept, duplicate or rejected), the split (null unless kept), and
# whether images of other classes have the same pixels.
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
        (TRUNCATED, pa.bool_()),
        (SPELLED, pa.string()),
    ]
)

FILES_SCHEMA = pa.schema([(FILE, pa.string()), (VERSION, pa.string()), (SIZE_BYTES, pa.int64()), (IMAGES, pa.int64())])
