"""Where in a corpus each vector is most active."""
