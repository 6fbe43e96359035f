"""Prototxt files: schema, reader, upgrades to the current format, writer."""
