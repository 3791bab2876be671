"""The models that visitors work on, planned before they are loaded and kept in memory."""
