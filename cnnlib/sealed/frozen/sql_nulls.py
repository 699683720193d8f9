"""Columns that keep their nulls in MLflow's `spark_udf`.

MLflow casts the columns of a struct by `Series.astype(int)` or `astype(str)`. A null among labels is then an error, and
a null among texts becomes the text "None". The columns of this module keep their nulls when they are cast.

This module travels inside every registered model, see `cnnlib.sealed.seal`.
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
        """Return the class of the arrays of this type."""
        return NullableArray


class NullableArray(ExtensionArray):
    """A one-dimensional array of Python objects and None."""

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
        """The type of the array."""
        return NullableDtype()

    @property
    def nbytes(self) -> int:
        """Bytes of the references to the objects."""
        return self._values.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, item: Any) -> Any:
        chosen = self._values[item]
        return NullableArray(chosen) if isinstance(chosen, np.ndarray) else chosen

    def isna(self) -> np.ndarray:
        """Return which elements are None."""
        return np.array([value is None for value in self._values], bool)

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> "NullableArray":
        """Return the elements at these indices. With `allow_fill`, -1 stands for None."""
        taken = self._values.take(indices)
        if allow_fill:
            taken[np.asarray(indices) == -1] = None
        return NullableArray(taken)

    def copy(self) -> "NullableArray":
        """Return a new array of the same objects."""
        return NullableArray(self._values)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Cast the elements. If some are None, these stay None, and the result is an array of objects."""
        present = ~self.isna()
        if isinstance(dtype, NullableDtype) or present.all():
            return super().astype(dtype, copy)
        result = np.full(len(self), None, object)
        result[present] = self._values[present].astype(dtype)
        return result


def keep_nulls(rows: pd.DataFrame) -> pd.DataFrame:
    """Make columns with some nulls nullable. MLflow does not cast a column of only nulls, so that one stays."""
    return pd.DataFrame({name: _nullable(column) for name, column in rows.items()})


def _nullable(column: pd.Series) -> pd.Series:
    null = column.isna()
    return pd.Series(NullableArray(column.tolist())) if null.any() and not null.all() else column
