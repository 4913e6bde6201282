"""What a search will take, before it starts."""
