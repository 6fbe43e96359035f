"""The graph of a net: its blobs, parameters and nodes, and how they are built from its layers."""
