"""Check the images of a large source while a net already trains on them."""

import logging
import threading

from siamese_proto.data.bad_records import Reading
from siamese_proto.data.images.class_choice import list_problems
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.errors import DataError, quoted

CHECKED_FIRST = 2000  # images of a source that are all checked before its first batch; of larger ones none is
_log = logging.getLogger(__name__)


def is_checked_later(images: LabeledImages) -> bool:
    """Whether there are too many images to read each before the first batch."""
    return not images.in_memory and len(images) > CHECKED_FIRST


class ImageCheck:
    """A thread that reads the header of every image, and logs at the end which images cannot be read.

    It changes nothing else: what happens at a damaged image depends on the batch it is drawn for, not on this thread.
    """

    def __init__(self, images: LabeledImages, reading: Reading) -> None:
        self._images = images
        self._reading = reading
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="siamese_proto image check", daemon=True)

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, whether or not it is done; a second call does nothing."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        problems: list[DataError] = []
        for index in range(len(self._images)):
            if self._stopped.is_set():
                return
            problem = self._images.problem(index)
            if problem is not None:
                problems.append(problem)
        layer, source = quoted(self._reading.layer), quoted(self._images.source)
        if not problems:
            _log.info("layer %s: all %d images of %s can be read", layer, len(self._images), source)
            return
        hint = "; the run ends when it needs one of them, unless --skip-bad-records is given"
        _log.warning(
            "layer %s: %d of %d images of %s cannot be read: %s%s",
            *(layer, len(problems), len(self._images), source, list_problems(problems)),
            hint if self._reading.left_out is None else "",
        )
