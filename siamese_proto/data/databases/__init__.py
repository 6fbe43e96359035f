"""LMDB and LevelDB databases: read, write and create them."""
