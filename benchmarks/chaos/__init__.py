"""Faults of real deployments, one after the other, and an audit of the books afterwards."""
