"""The protocol between server and client, on Flower's records."""
