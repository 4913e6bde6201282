"""The parts of Zhang 2018's cross-cascading regression network; `systems/cascade.py` puts them together."""
