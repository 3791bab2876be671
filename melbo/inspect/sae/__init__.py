"""A bank's vectors beside a sparse autoencoder's features."""
