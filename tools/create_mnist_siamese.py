"""Make a pair database like Caffe's convert_mnist_siamese_data: one pair per image, drawn uniformly, in a LevelDB."""

from __future__ import annotations

import argparse
import sys

from siamese_proto.data.databases.pairs import draw_pairs, write_pairs
from siamese_proto.data.images.idx import read_labeled
from siamese_proto.errors import NetError


def main() -> int:
    """Parse the command line; return 1 if the files cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image_file", help="IDX file of images, plain or .gz")
    parser.add_argument("label_file", help="IDX file of their classes")
    parser.add_argument("db_file", help="the LevelDB folder to make")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.seed < 0:
        parser.error("--seed must be 0 or above")
    try:
        images, labels = read_labeled(arguments.image_file, arguments.label_file)
        pairs = draw_pairs(labels, len(labels), draw="uniform", seed=arguments.seed)
        write_pairs(arguments.db_file, "LEVELDB", images, pairs)
    except NetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.db_file}: {len(labels)} pairs, {int(pairs.same.sum())} of them same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
