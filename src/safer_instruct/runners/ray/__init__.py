"""The flow on a cluster, as operators of Ray Data over chunks of examples.

run.py          the driver: connects, holds the run directory, writes what comes out
plan.py         what every worker is told; what a run on a cluster cannot do; limits shared out among workers
workers.py      the operators: the source, those that do one part of the work each, those that must see all in order
link.py         a worker's line to the coordinator
allowance.py    a worker's part of the budget
coordinator.py  the one actor that knows of all workers: budget, limits of endpoints, calls that two of them want, who is gone
"""

from safer_instruct.runners.ray.plan import Cluster, cluster_of
from safer_instruct.runners.ray.run import run_on_ray

__all__ = ["Cluster", "cluster_of", "run_on_ray"]
