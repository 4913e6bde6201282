"""What is tried next: samplers, what they are told, and the searcher that Ray asks."""
