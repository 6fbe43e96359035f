"""Features of images: computed, and saved to files."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.pair_sources import image_files, is_image_name, labeled_images
from siamese_proto.evaluation.twin import Floats, Twin
from siamese_proto.files import check_writable, replacing

Labels = NDArray[numpy.integer]
UNKNOWN = -1  # the label of images whose class is unknown


@dataclass(frozen=True)
class Embedding:
    """Features (N, *K), the class of each image (N,), or -1 if it is unknown, and the names of the images."""

    features: Floats
    labels: Labels
    names: Sequence[str]
    class_names: Mapping[int, str] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)  # the net and its weights, as a `twin.Subject`

    def name_of_class(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return self.class_names.get(label, str(label))


def open_images(twin: Twin, sources: Sequence[LabeledSource]) -> LabeledImages:
    """Open images as the net takes them: one source of labeled images, or files and folders without classes.

    Images without a class have label -1. Raises DataError if the images cannot be read.
    """
    preprocessing = twin.preprocessing()
    first = sources[0]
    if len(sources) == 1 and not _is_plain(first.path):
        return labeled_images(first, preprocessing)
    if first.labels or first.classes:
        raise DataError(f"{quoted(first.path)} is not a source of labeled images, so it has no classes to choose from")
    return image_files([source.path for source in sources], preprocessing)


def _is_plain(path: str) -> bool:
    """Whether a path is an image file, or a folder that is empty or directly contains images."""
    if not os.path.isdir(path):
        return is_image_name(path)
    entries = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
    return not entries or any(is_image_name(entry.name) and entry.is_file() for entry in entries)


def embed_images(twin: Twin, images: LabeledImages, *, side: int = 0) -> Embedding:
    """Compute the features of images. Raises DataError, with the name of the image, if one cannot be read."""
    features = twin.embed_images(images, side=side)
    made_by = asdict(twin.subject(str(twin.preprocessing())))
    return Embedding(features, images.labels, list(images.names), dict(images.class_names), made_by)


def save_features(embedding: Embedding, path: str | os.PathLike[str]) -> None:
    """Write `.npz` (features, labels, names, class_names) or `.npy` (the features alone), without pickled objects."""
    check_writable(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".npz", ".npy"):
        raise DataError(f"{quoted(os.fspath(path))}: features are written to a .npy or a .npz file")
    classes = [embedding.name_of_class(label) for label in embedding.labels.tolist()]
    names, class_names = (
        numpy.array([text.encode(errors="surrogateescape").decode(errors="replace") for text in texts], dtype=str)
        for texts in (embedding.names, classes)
    )
    with replacing(path) as partial, open(partial, "wb") as file:
        if suffix == ".npy":
            numpy.save(file, embedding.features, allow_pickle=False)
            return
        numpy.savez(
            file,
            allow_pickle=False,
            features=embedding.features,
            labels=embedding.labels,
            names=names,
            class_names=class_names,
            made_by=numpy.array(json.dumps(embedding.made_by)),
        )


def read_features(path: str | os.PathLike[str]) -> Embedding:
    """Read a `.npz` file of `save_features`. Raises DataError for other files."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            arrays = numpy.load(file, allow_pickle=False)
            if not isinstance(arrays, numpy.lib.npyio.NpzFile):
                raise DataError(f"{quoted(name)} holds an array without names or labels; give a .npz of 'embed'")
            features, labels, names, classes = (arrays[key] for key in ("features", "labels", "names", "class_names"))
            made_by = json.loads(str(arrays["made_by"])) if "made_by" in arrays.files else {}
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except DataError:
        raise
    except Exception as error:  # for damaged files, NumPy and zipfile raise exceptions of any type
        raise DataError(f"{quoted(name)} is not a .npz of 'siamese-proto embed' ({error})") from error
    if features.ndim < 2 or not len(features) or not len(features) == len(labels) == len(names) == len(classes):
        raise DataError(
            f"{quoted(name)} is not a .npz of 'siamese-proto embed': expected arrays of one length, at least 1"
        )
    by_label = {int(label): str(text) for label, text in zip(labels, classes, strict=True)}
    class_names = {label: text for label, text in by_label.items() if text != str(label)}
    return Embedding(features.reshape(len(features), -1), labels, [str(text) for text in names], class_names, made_by)
