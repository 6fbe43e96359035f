"""The command siamese-proto: one small file a command."""
