"""Codecs of fl-opt beside the released code of other projects, on the same vectors.

``python -m benchmarks.peers`` makes one virtual environment for each peer, in which
``benchmarks.peers.adapters.<peer>`` encodes and decodes vectors from files. Nothing is imported
here: the adapters run where fl-opt and its dependencies are not installed.
"""
