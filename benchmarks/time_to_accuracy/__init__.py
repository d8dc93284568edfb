"""The headline benchmark: bytes, rounds and virtual time to an accuracy.

``tasks`` and ``methods`` say what is compared, ``plan`` puts them together, ``runs`` carries
them out and keeps what came of each, ``measure`` finds when a target was reached, ``replay``
tells the time on other links, ``page`` and ``plots`` show it.
"""
