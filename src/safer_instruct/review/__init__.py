"""The review app: a local page on which people read pairs, decide on them and correct them.

index.py    where every example of a run stands, and which words it holds: a table beside the run, made once
queue.py    which example comes next, for whom, under which filters
store.py    what people said, durable before it is acknowledged
figures.py  progress, pace, agreement
labels.py   what was said, given back: labels for calibration, pairs for export
desk.py     all of these together, for one run and several annotators
desks.py    the desk of the run as it stands now, after it was made again too
guard.py    who may ask: host, origin, token, session; and the headers that bind the page
app.py      addresses and answers
serve.py    the server process
static/     the page: no build step, no request off the machine
"""
