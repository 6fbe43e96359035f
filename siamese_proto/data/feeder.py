"""Batches made ahead of their use, in a thread of their own."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

    Batch = Sequence[NDArray[numpy.float32]]


class Source(Protocol):
    """Where a feeder's batches come from."""

    def batches(self, first: int) -> Iterator[Batch]:
        """Batches without end, from number `first` on, one array a top; used from one thread at a time."""

    def close(self) -> None:
        """Give files back."""


class PrefetchFeeder:
    """Delivers the batches of a source while a thread makes up to `ahead` of them in advance.

    The thread begins with the first batch that is asked for. What goes wrong in it is raised by `next_batch` in the
    place of the batch it happened at; asking again tries that batch again.
    """

    def __init__(self, source: Source, *, ahead: int) -> None:
        self.batches = 0
        self._source = source
        self._ahead = max(1, ahead)
        self._worker: _Worker | None = None
        self._stop: Callable[[], object] = lambda: None
        self._close = weakref.finalize(self, source.close)

    def next_batch(self) -> Sequence[Tensor]:
        """One float32 tensor a top."""
        import torch

        if not self._close.alive:
            raise ValueError("this feeder is closed")
        if self._worker is None:
            self._worker = _Worker(self._source, self.batches, self._ahead)
            # Finalizers run in reverse order, at the end of the interpreter too: first the thread, then its source.
            self._stop = weakref.finalize(self, self._worker.stop)
        item = self._worker.take()
        if isinstance(item, BaseException):
            self._halt()
            raise item
        self.batches += 1
        return [torch.from_numpy(array) for array in item]

    def skip(self, batches: int) -> None:
        """Go on as if `batches` batches had been delivered since the first record."""
        self._halt()
        self.batches = batches

    def close(self) -> None:
        """Stop the thread and close the source; a second call does nothing."""
        self._halt()
        self._close()

    def _halt(self) -> None:
        self._stop()
        self._worker = None


class _Worker:
    """A thread and the queue that it fills. It knows nothing of the feeder, so that a dropped feeder is freed."""

    def __init__(self, source: Source, first: int, ahead: int) -> None:
        self._items: deque[Batch | BaseException] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._ahead = ahead
        self._thread = threading.Thread(
            target=self._run, args=(source, first), name="siamese_proto data reader", daemon=True
        )
        self._thread.start()

    def take(self) -> Batch | BaseException:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            item = self._items.popleft()
            self._changed.notify_all()
        return item

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():  # garbage may be collected in any thread, this one too
            self._thread.join()

    def _run(self, source: Source, first: int) -> None:
        try:
            for batch in source.batches(first):
                if not self._put(batch):
                    return
        except BaseException as error:  # handed over to the thread that waits, and raised there
            self._put(error)

    def _put(self, item: Batch | BaseException) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._ahead)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped
