"""What runs in the processes that train, and what passes between them and the search."""
