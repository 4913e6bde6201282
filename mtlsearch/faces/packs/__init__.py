"""Packs: one memory-mapped array of face crops per split, its labels and its manifest; written, read, checked."""
