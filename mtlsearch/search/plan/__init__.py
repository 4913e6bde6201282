"""What is searched: the space, its distributions, settings and constraints."""
