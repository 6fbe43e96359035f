"""Where batches come from: databases, their records, transforms, and the making of databases."""
