"""How good a trained twin is, as numbers and as pictures."""
