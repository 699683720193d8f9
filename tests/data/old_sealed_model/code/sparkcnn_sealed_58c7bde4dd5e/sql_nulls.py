"""Columns whose nulls come through MLflow's `spark_udf`.

It casts a column of a struct by `Series.astype(int)` or `astype(str)`: a null among labels is an error then, and one
among texts becomes the text "None". These columns keep their nulls when they are cast.

This module travels inside every registered model, see `cnnlib.sealed`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype


class NullableDtype(ExtensionDtype):
    """Any Python object, or None."""

    name = "sparkcnn_nullable"
    type = object
    na_value = None

    @classmethod
    def construct_array_type(cls) -> Any:
        """The arrays of this type."""
        return NullableArray


class NullableArray(ExtensionArray):
    """One-dimensional, of Python objects and None."""

    def __init__(self, values: Sequence[Any] | np.ndarray) -> None:
        self._values = np.empty(len(values), object)
        self._values[:] = values

    @classmethod
    def _from_sequence(cls, scalars: Any, *, dtype: Any = None, copy: bool = False) -> "NullableArray":
        return cls(list(scalars))

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence["NullableArray"]) -> "NullableArray":
        return cls(np.concatenate([array._values for array in to_concat]))

    @property
    def dtype(self) -> NullableDtype:
        """Their type."""
        return NullableDtype()

    @property
    def nbytes(self) -> int:
        """Bytes of the references."""
        return self._values.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, item: Any) -> Any:
        chosen = self._values[item]
        return NullableArray(chosen) if isinstance(chosen, np.ndarray) else chosen

    def isna(self) -> np.ndarray:
        """Which are None."""
        return np.array([value is None for value in self._values], bool)

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> "NullableArray":
        """Those at these places; with `allow_fill`, None at -1."""
        taken = self._values.take(indices)
        if allow_fill:
            taken[np.asarray(indices) == -1] = None
        return NullableArray(taken)

    def copy(self) -> "NullableArray":
        """Another one, of the same objects."""
        return NullableArray(self._values)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """The objects as another type; where some are None, these stay None and all stay objects."""
        present = ~self.isna()
        if isinstance(dtype, NullableDtype) or present.all():
            return super().astype(dtype, copy)
        result = np.full(len(self), None, object)
        result[present] = self._values[present].astype(dtype)
        return result


def keep_nulls(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with columns that are nullable where some values are null; MLflow casts none where all are."""
    return pd.DataFrame({name: _nullable(column) for name, column in rows.items()})


def _nullable(column: pd.Series) -> pd.Series:
    null = column.isna()
    return pd.Series(NullableArray(column.tolist())) if null.any() and not null.all() else column
