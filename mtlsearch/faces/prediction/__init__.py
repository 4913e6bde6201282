"""A checkpoint on pictures that nobody labelled: find faces, predict, draw, write down."""
