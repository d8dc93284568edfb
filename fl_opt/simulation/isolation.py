"""Copies that keep server and clients apart though they share a process.

Over a network each side gets objects of its own. Here the structure of a message is copied
and the data, immutable ``bytes``, is shared: what one side does to its records never shows
on the other, and nothing large is copied.
"""

from __future__ import annotations

import copy
from typing import TypeAlias, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message

Record: TypeAlias = ArrayRecord | ConfigRecord | MetricRecord
R = TypeVar("R", ConfigRecord, MetricRecord)


def isolated_message(message: Message) -> Message:
    """Return a copy of a message that shares nothing mutable with it."""
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return make_message(metadata=metadata, error=copy.copy(message.error))
    return make_message(metadata=metadata, content=isolated_records(message.content))


def isolated_records(records: RecordDict) -> RecordDict:
    """Return a copy of records that shares nothing but the data of Arrays."""
    return RecordDict({name: _isolated(record) for name, record in records.items()})


def portable_message(message: Message) -> Message:
    """Return an isolated copy that can be pickled."""
    duplicate = isolated_message(message)
    if duplicate.has_content():
        _forget_hashes(duplicate.content)
    return duplicate


def portable_records(records: RecordDict) -> RecordDict:
    """Return isolated records that can be pickled."""
    duplicate = isolated_records(records)
    _forget_hashes(duplicate)
    return duplicate


def with_own_metadata(message: Message) -> Message:
    """Return a message with the same content, whose metadata nobody else can change."""
    duplicate = copy.copy(message)
    duplicate.__dict__["_metadata"] = copy.copy(message.metadata)
    return duplicate


def _isolated(record: Record) -> Record:
    if isinstance(record, ArrayRecord):
        duplicate = record.copy()
        for name, array in record.items():
            duplicate[name] = copy.copy(array)  # with its hash: it is not hashed again
        return duplicate
    if isinstance(record, ConfigRecord):
        return _with_own_lists(record)
    return _with_own_lists(record)


def _with_own_lists(record: R) -> R:
    """Return a copy; all values but lists are immutable."""
    duplicate = record.copy()
    for name, value in record.items():
        if isinstance(value, list):
            duplicate[name] = value.copy()
    return duplicate


def _forget_hashes(records: RecordDict) -> None:
    """Put new Arrays in place of those that were hashed: these hold views of memory."""
    for record in records.array_records.values():
        for name, array in record.items():
            record[name] = Array(array.dtype, array.shape, array.stype, array.data)
