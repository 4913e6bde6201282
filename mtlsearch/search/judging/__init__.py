"""Who wins: ranking, confirmation, comparison, full size, whose weights are kept."""
