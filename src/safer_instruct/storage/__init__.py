"""Object storage: what sources, runs and exports at addresses such as `s3://bucket/key` stand on.

address.py    what an address is
client.py     one bucket: get, put, list; the store's errors become ours
profiles.py   keys from ~/.aws, as every AWS tool finds them
files.py      the files that an address or a glob leads to, read in ranges
claim.py      one writer at an address: a lock that is created, renewed and taken over by conditional puts
journal.py    finished calls in the store before anybody sees their answers
attached.py   which journal belongs to which working directory

Runs that stand at an address are in `remote`.
"""
