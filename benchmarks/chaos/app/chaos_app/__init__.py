"""Softmax regression under an auditor's eyes."""
