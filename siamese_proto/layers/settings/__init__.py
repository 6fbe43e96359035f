"""Settings of layer types that the schema does not know."""
