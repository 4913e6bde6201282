"""What people look at: landmarks and axes drawn on crops, and sheets of many."""
