"""Who decides where the parts of the flow run; nothing here knows what a text says.

The local runner is `pipeline.run` itself: one process, one event loop.

    chunks.py    some examples on their way between processes, as bytes
    counts.py    live figures of a part of the work, brought to those of the whole run
    ray/         the same flow on a cluster, as operators of Ray Data
"""
