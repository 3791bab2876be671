"""The Hugging Face Hub, as far as banks and models need it: requests, and their failures in plain words."""
