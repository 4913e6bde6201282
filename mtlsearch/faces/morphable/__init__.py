"""The morphable head model: its surface, its mesh, its modes, the points on it; and the published models on disk."""
