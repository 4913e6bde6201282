"""Faces: data, morphable model, geometry. Modules are imported one by one; this package imports none."""
