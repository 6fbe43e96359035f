"""Input data: databases, images, the data layers that read them, and the making of databases.

Importing this package registers the data layers; it loads neither torch nor the database libraries.
"""

from siamese_proto.data.layers import data as data
from siamese_proto.data.layers import dummy as dummy
from siamese_proto.data.layers import hdf5 as hdf5
from siamese_proto.data.layers import hdf5_output as hdf5_output
from siamese_proto.data.layers import image_data as image_data
from siamese_proto.data.layers import pair_data as pair_data
from siamese_proto.data.layers import window_data as window_data
