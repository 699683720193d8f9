"""Keep near duplicates in one split: images whose perceptual hashes differ in few bits get the same split key.

Hashes that differ in at most d of 64 bits agree in at least one of d + 1 bands of bits (pigeonhole principle). So a
join on bands finds the candidates, and then their difference is counted. Images that are near each other belong
together, also over several steps; so do the images of one group.
"""

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnnlib.image_set.ledger import GIVEN_SPLIT, PERCEPTUAL_HASH
from cnnlib.image_set.splits import TEST, TRAIN, VAL

_BITS = 64
_BY_RANK = (TEST, VAL, TRAIN)
_COMPONENT = "component"


def with_common_keys(images: DataFrame, key: str, common_split: str, distance: int) -> DataFrame:
    """Give images that belong together the smallest of their keys, in the column `key`.

    The column `common_split` gets the given split of any image in the group, else null. If several splits are given,
    test wins over val, and val over train.
    """
    related = components(images, key, distance)
    images = images.join(F.broadcast(related), PERCEPTUAL_HASH, "left")
    alone = F.col(_COMPONENT).isNull()
    together = Window.partitionBy(_COMPONENT, F.when(alone, F.col(key)))
    given = F.min(held_out_rank(F.col(GIVEN_SPLIT))).over(together)
    splits = F.array(*map(F.lit, _BY_RANK))
    return images.withColumns(
        {
            key: F.when(alone, F.col(key)).otherwise(F.min(key).over(together)),
            common_split: F.when(~alone & given.isNotNull(), F.element_at(splits, given)),
        }
    ).drop(_COMPONENT)


def held_out_rank(split: Column) -> Column:
    """Return 1 for test, 2 for val, 3 for train, and null for null. Test is used last, so it is held out most."""
    first, second, third = _BY_RANK
    return F.when(split == first, 1).when(split == second, 2).when(split == third, 3)


def components(images: DataFrame, key: str, distance: int) -> DataFrame:
    """Return the perceptual hashes that belong together with others, each with the number of its component.

    The hashes and their pairs are collected in the driver: 24 bytes per hash.
    """
    hashes = images.select(key, PERCEPTUAL_HASH).distinct()
    pairs = near_pairs(hashes.select(PERCEPTUAL_HASH).distinct(), distance).unionByName(_pairs_of_groups(hashes, key))
    edges = np.array(pairs.collect(), np.int64).reshape(-1, 2)
    nodes, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(nodes), len(nodes)))
    labels = connected_components(graph, directed=False)[1] if len(nodes) else np.empty(0, np.int32)
    table = pd.DataFrame({PERCEPTUAL_HASH: nodes, _COMPONENT: labels.astype(np.int64)})
    return images.sparkSession.createDataFrame(table, f"{PERCEPTUAL_HASH} long, {_COMPONENT} long")


def near_pairs(hashes: DataFrame, distance: int) -> DataFrame:
    """Return pairs (a, b) of different hashes, a < b, that differ in at most `distance` bits."""
    edges = [round(_BITS * band / (distance + 1)) for band in range(distance + 2)]
    bands = F.array(
        *(
            F.struct(
                F.lit(start).alias("start"),
                F.shiftrightunsigned(PERCEPTUAL_HASH, start).bitwiseAND(F.lit((1 << (end - start)) - 1)).alias("bits"),
            )
            for start, end in zip(edges, edges[1:], strict=False)
            if end - start < _BITS
        )
    )
    if not distance:
        return hashes.limit(0).select(F.col(PERCEPTUAL_HASH).alias("a"), F.col(PERCEPTUAL_HASH).alias("b"))
    banded = hashes.select(F.col(PERCEPTUAL_HASH), F.explode(bands).alias("band"))
    left, right = (banded.withColumnRenamed(PERCEPTUAL_HASH, name) for name in ("a", "b"))
    near = F.bit_count(F.col("a").bitwiseXOR(F.col("b"))) <= distance
    return left.join(right, "band").where((F.col("a") < F.col("b")) & near).select("a", "b").distinct()


def _pairs_of_groups(hashes: DataFrame, key: str) -> DataFrame:
    """Pair every hash with the first hash of its key. A group has as many hashes as it has different images."""
    first = F.min(PERCEPTUAL_HASH).over(Window.partitionBy(key))
    several = F.count("*").over(Window.partitionBy(PERCEPTUAL_HASH)) > 1
    pairs = hashes.select(F.col(PERCEPTUAL_HASH).alias("a"), first.alias("b"), several.alias("several"))
    # A hash with several keys is a component, even if its only pair is with itself.
    return pairs.where(F.col("several") | (F.col("a") != F.col("b"))).select("a", "b").distinct()
