"""Measuring what was made: models side by side on data that none of them saw.

settings.py     what a config can say                    inducer/        how good an inducer is
prompts.py      prompts, and answers that are there      answering.py    answers that are drawn now
judges.py       judges that score, and that are asked    judging.py      every judge on every answer and pair
figures.py      who beats whom                           rates.py        how many are harmful, and refuse
families.py     model families by name                   honesty.py      what makes an evaluation flatter
people.py       blinded sheets, and their answers        downstream.py   lm-evaluation-harness
result.py       all figures together                     report.py       the same as Markdown
files.py        what stands in the directory             sitting.py      models, ledger, budget, progress
run.py          all of it in order: `evaluate(config, out) -> Evaluation`
"""

from safer_instruct.evaluation.result import Evaluation
from safer_instruct.evaluation.run import evaluate
from safer_instruct.evaluation.settings import EvaluateConfig, load_evaluation

__all__ = ["EvaluateConfig", "Evaluation", "evaluate", "load_evaluation"]
