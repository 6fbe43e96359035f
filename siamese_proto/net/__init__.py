"""A graph as a torch module: parameters, their first values, and the program that runs."""
