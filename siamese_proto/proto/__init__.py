"""What was written: the schema, the reader, the upgrades to today's dialect, the writer."""
