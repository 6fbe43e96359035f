"""Batches made ahead of their use, in a thread of their own."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

    Batch = Sequence[NDArray[numpy.float32]]

MOST_MAKERS = 4  # threads that make batches, at most: more hardly gain, as only decoding runs beside other Python


class Source(Protocol):
    """Where a feeder's batches come from."""

    def batches(self, first: int) -> Iterator[Batch | Callable[[], Batch]]:
        """Batches without end, from number `first` on, one array a top; iterated from one thread at a time.

        In the place of a batch there may be a function that makes it, when it takes so much decoding that several are
        worth making at once: these are called from several threads.
        """

    def close(self) -> None:
        """Give files back."""


@runtime_checkable
class NamedSource(Protocol):
    """A source that can say where a row of a batch comes from."""

    def record(self, batch: int, row: int) -> str:
        """As in `row 3 of 'a.h5'`, `image 'a.png'`."""


class PrefetchFeeder:
    """Delivers the batches of a source while a thread makes up to `ahead` of them in advance.

    Batches that take decoding are made by several threads side by side, and delivered in their order. Work begins with
    the first batch that is asked for. What goes wrong in it is raised by `next_batch` in the place of the batch it
    happened at; asking again tries that batch again.
    """

    def __init__(self, source: Source, *, ahead: int) -> None:
        self.batches = 0
        self.step = 1  # of so many batches only the first is delivered, though all count; set before the first is
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
            self._worker = _Worker(self._source, self.batches, self.step, self._ahead)
            # Finalizers run in reverse order, at the end of the interpreter too: first the thread, then its source.
            self._stop = weakref.finalize(self, self._worker.stop)
        item = self._worker.take()
        if isinstance(item, BaseException):
            self._halt()
            raise item
        self.batches += self.step
        return [torch.from_numpy(array) for array in item]

    def record(self, batch: int, row: int) -> str:
        """Where a row of batch number `batch` comes from; empty where the source does not say it."""
        return self._source.record(batch, row) if isinstance(self._source, NamedSource) else ""

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

    def __init__(self, source: Source, first: int, step: int, ahead: int) -> None:
        self._items: deque[Batch | Future[Batch] | BaseException] = deque()
        self._makers: ThreadPoolExecutor | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._ahead = ahead
        self._thread = threading.Thread(
            target=self._run, args=(source, first, step), name="siamese_proto data reader", daemon=True
        )
        self._threads = {self._thread}
        self._thread.start()

    def take(self) -> Batch | BaseException:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            item = self._items.popleft()
            self._changed.notify_all()
        if not isinstance(item, Future):
            return item
        return item.exception() or item.result()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if threading.current_thread() not in self._threads:  # garbage may be collected in any thread, these too
            self._thread.join()

    def _run(self, source: Source, first: int, step: int) -> None:
        try:
            for item in itertools.islice(source.batches(first), 0, None, step):
                if not self._put(item):
                    return
        except BaseException as error:  # handed over to the thread that waits, and raised there
            self._put(error)
        finally:
            if self._makers is not None:
                self._makers.shutdown(cancel_futures=self._stopped)

    def _put(self, item: Batch | Callable[[], Batch] | BaseException) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._ahead)
            if not self._stopped:
                self._items.append(self._make(item) if callable(item) else item)
                self._changed.notify_all()
            return not self._stopped

    def _make(self, maker: Callable[[], Batch]) -> Future[Batch]:
        if self._makers is None:
            self._makers = ThreadPoolExecutor(
                min(MOST_MAKERS, os.cpu_count() or 1),
                "siamese_proto batch maker",
                initializer=lambda: self._threads.add(threading.current_thread()),
            )
        return self._makers.submit(maker)
