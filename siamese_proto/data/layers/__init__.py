"""The data layers: Data, ImageData, PairData, HDF5Data, WindowData, DummyData, MemoryData and HDF5Output."""
