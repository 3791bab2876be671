"""The commands of `melbo inspect`, one file each."""
