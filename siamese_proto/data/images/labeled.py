"""Labeled images: images with a class each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from siamese_proto.data.databases.datum import Size
from siamese_proto.data.images.image_stores import ArrayStore, ImageStore
from siamese_proto.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.images.image_stores import Labels


class LabeledImages:
    """Images with classes. Any image can be read at any time, from several threads at once.

    `labels` are the classes as the source numbers them, (N,) int64. `names` identify images in messages. `class_names`
    are the names of labels, if the source has names (the subfolders of a folder).
    """

    def __init__(self, store: ImageStore, rows: NDArray[Any] | None = None) -> None:
        self._store = store
        self._rows = rows
        self.source = store.source
        self.class_names: Mapping[int, str] = store.class_names

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> Labels:
        """(N,) int64."""
        labels = self._store.labels()
        return labels if self._rows is None else labels[self._rows]

    @cached_property
    def names(self) -> Sequence[str]:
        """A path, the key of a record, or `file[number]` for each image."""
        names = self._store.names()
        return names if self._rows is None else [names[row] for row in self._rows.tolist()]

    @property
    def shape(self) -> Size:
        """(C, H, W) of the source's first image. Without a new size, other images may differ."""
        return self._store.size

    @property
    def in_memory(self) -> bool:
        """Whether the images are arrays, with nothing to read or decode."""
        return isinstance(self._store, ArrayStore)

    def image(self, index: int) -> Pixels:
        """Return (C, H, W), uint8 or float32; gray, or blue, green, red. Raises DataError if it cannot be read."""
        return self._store.read(index if self._rows is None else int(self._rows[index]))

    def images(self, indices: NDArray[Any]) -> Pixels | list[Pixels]:
        """Return several images: one array (n, C, H, W) if they are in memory, else a list of (C, H, W)."""
        return self._store.read_many(indices if self._rows is None else self._rows[indices])

    def selected(self, indices: NDArray[Any]) -> LabeledImages:
        """Return some of the images, in this order. They share the open source."""
        return LabeledImages(self._store, indices if self._rows is None else self._rows[indices])

    def name_of_class(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return self.class_names.get(label, str(label))

    def unreadable(self, *, decoding: bool = False) -> dict[int, DataError]:
        """Return the error of each image that cannot be read, by index.

        Headers are read, and files whose end looks cut off are decoded. `decoding` decodes all images, which also
        finds those that are damaged in the middle.
        """
        from concurrent.futures import ThreadPoolExecutor

        rows = range(len(self)) if self._rows is None else self._rows.tolist()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            problems = threads.map(partial(self._problem, decoding=decoding and not self.in_memory), rows)
            return {index: problem for index, problem in enumerate(problems) if problem is not None}

    def problem(self, index: int) -> DataError | None:
        """Return why an image cannot be read, as far as that is known without decoding it."""
        return self._problem(index if self._rows is None else int(self._rows[index]), decoding=False)

    def _problem(self, row: int, *, decoding: bool) -> DataError | None:
        try:
            if decoding:
                self._store.read(row)
            else:
                self._store.check(row)
        except DataError as error:
            return error
        return None

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        self._store.close()

    def __enter__(self) -> LabeledImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
