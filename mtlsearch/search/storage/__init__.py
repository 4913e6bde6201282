"""Where a study lies: its copy at a URI, trials' files, places by default."""
