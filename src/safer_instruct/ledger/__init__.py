"""The durable call ledger: every model call is committed, fsynced, before anyone sees its answer.

Stages are deterministic given the answers, so *resume = run it again*: finished calls come back from here for free.

    recorded.py   a `Model` whose calls go through the ledger: key, lookup, call, commit
    commits.py    a thread that commits in groups, whatever the files are
    store.py      the file in use: a connection that writes, one that reads by key
    shards.py     a worker's part of the ledger of a cluster, and how the parts become one file
    rows.py       a call as a row: compressed with a dictionary that the ledger trains for itself, and a checksum
    known.py      which keys may be there, asked without a look into the file
    content.py    requests and answers as bytes
    segments.py   finished calls outside of a ledger: as bytes, and merged into one
    queries.py    totals and calls, also while a run is writing
    schema.py     the tables, how a file is opened, and how an older one is brought up to date
    recovery.py   what is intact in a damaged file, copied into a fresh one
    wal.py        the write-ahead log of a file, read without SQLite
    pages.py      rows straight from the pages of a file that SQLite will not read any more
"""

from safer_instruct.ledger.commits import Commits
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.queries import Total, as_record, bears_mark, cost_of, export_calls, find_by_key, find_calls, read_calls, read_mark, read_totals
from safer_instruct.ledger.recorded import Meter, Recorded
from safer_instruct.ledger.recovery import Recovery, recover, was_recovered
from safer_instruct.ledger.schema import fold_log
from safer_instruct.ledger.shards import Claims, Shard, merge_shards
from safer_instruct.ledger.store import Ledger
from safer_instruct.ledger.wal import size_and_log

__all__ = [
    "Call",
    "Claims",
    "Commits",
    "Ledger",
    "Meter",
    "Recorded",
    "Recovery",
    "Shard",
    "Total",
    "as_record",
    "bears_mark",
    "cost_of",
    "export_calls",
    "find_by_key",
    "find_calls",
    "fold_log",
    "merge_shards",
    "read_calls",
    "read_mark",
    "read_totals",
    "recover",
    "size_and_log",
    "was_recovered",
]
