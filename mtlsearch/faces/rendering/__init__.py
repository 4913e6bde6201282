"""Rendered faces: the recipe, the looks of a head and of what surrounds it, the renderer."""
