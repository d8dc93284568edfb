"""A Flower app with a NumPyClient."""
