"""Copies that keep server and clients apart though they share a process.

Over a network each side gets objects of its own. Here the structure of a message is copied
and the data, immutable ``bytes``, is shared: what one side does to its records never shows
on the other, and nothing large is copied.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message

Record: TypeAlias = ArrayRecord | ConfigRecord | MetricRecord


def isolated_message(message: Message) -> Message:
    """Return a copy of a message that shares nothing mutable with it."""
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return make_message(metadata=metadata, error=copy.copy(message.error))
    return make_message(metadata=metadata, content=isolated_records(message.content))


def isolated_records(records: RecordDict) -> RecordDict:
    """Return a copy of records that shares nothing but the data of Arrays."""
    return RecordDict({name: _isolated(record) for name, record in records.items()})


def _isolated(record: Record) -> Record:
    if not isinstance(record, ArrayRecord):
        return copy.deepcopy(record)  # numbers, texts and short lists
    duplicate = record.copy()
    for name, array in record.items():
        duplicate[name] = copy.copy(array)  # with its hash, so that it is not hashed again
    return duplicate
