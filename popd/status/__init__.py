"""What an operator would rather look at than read logs: metrics, health, and a page."""
