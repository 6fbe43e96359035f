"""Projects that start from an included network."""
