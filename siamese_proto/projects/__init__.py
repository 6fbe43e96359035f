"""Projects that begin with one of the included networks."""
