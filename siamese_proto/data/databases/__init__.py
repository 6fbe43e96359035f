"""LMDB and LevelDB databases: records, reading, writing and making."""
