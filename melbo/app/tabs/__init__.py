"""One folder per tab of the app."""
