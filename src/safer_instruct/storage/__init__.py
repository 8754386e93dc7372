"""Object storage: sources, run directories and exports at addresses such as `s3://bucket/key`.

address.py    what an address is, and where on this machine its working directory and copies are
client.py     one bucket: get, put, list; the store's errors become ours
profiles.py   keys from ~/.aws, as every AWS tool finds them
files.py      the files that an address or a glob leads to, read in ranges
claim.py      one writer at an address: a lock that is created, renewed and taken over by conditional puts
journal.py    finished calls in the store before anybody sees their answers
restore.py    a working directory from what the store holds
publish.py    results into the store, data first and the manifest last
session.py    a run at an address: claim, restore, work, publish
attached.py   which journal belongs to which working directory
copies.py     what commands read of a run at an address, and where they write to one
arguments.py  addresses on the command line
"""
