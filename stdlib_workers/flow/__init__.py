"""The standard worker `flow`: functions whose progress outlives the processes that run them."""
