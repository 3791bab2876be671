"""One file per discovery method."""
