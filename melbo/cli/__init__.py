"""The commands of `melbo`, one file each; `melbo/__main__.py` registers them."""
