"""What happened, on disk: journal, trials, requests, budget."""
