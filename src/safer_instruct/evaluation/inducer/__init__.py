"""How good an inducer is: P(instruction | response) of several systems side by side on held-out pairs.

plan.py      the config, and the systems that it comes to
calls.py     what each system writes and scores, through the ledger
figures.py   figures with confidence intervals, from what was written and scored
report.py    Markdown and JSON, and the section of an adapter's card
run.py       all of it in order
"""

from safer_instruct.evaluation.inducer.figures import Evaluation, SystemFigures
from safer_instruct.evaluation.inducer.plan import EvaluationConfig, Plan, load_plan
from safer_instruct.evaluation.inducer.run import evaluate_inducers

__all__ = ["Evaluation", "EvaluationConfig", "Plan", "SystemFigures", "evaluate_inducers", "load_plan"]
