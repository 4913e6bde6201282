"""How well a system does: protocol, accumulation, the papers' table beside it, figures, cost."""
