"""Where batches come from: databases, their records, transforms, and the making of databases.

Importing this package registers the data layers; it loads neither torch nor the database libraries.
"""

from siamese_proto.data import dummy as dummy
from siamese_proto.data import hdf5 as hdf5
from siamese_proto.data import hdf5_output as hdf5_output
from siamese_proto.data import images as images
from siamese_proto.data import layers as layers
from siamese_proto.data import pair_layer as pair_layer
from siamese_proto.data import window_layer as window_layer
