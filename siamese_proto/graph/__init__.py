"""What is meant: blobs, parameters and nodes of a net, and the rules that make them from its layers."""
