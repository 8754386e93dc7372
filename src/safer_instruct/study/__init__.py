"""What preference data is worth: models trained on it, on controls and on nothing, side by side on prompts that none of them saw.

settings.py   what a config can say                       plan.py       the whole grid as steps
steps.py      steps that are known as done                setsteps.py   the steps that make the sets
runs.py       sets that a run makes, filters on or off    invented.py   pairs made without any text
pairs.py      pairs read, shuffled, drawn, written        division.py   equal sizes, and held-out prompts
compare.py    arms beside each other, paired              figures.py    the figures of an experiment
tables.py     Markdown, LaTeX, CSV                        plots.py      error bars as SVG
report.py     all that is read                            run.py        `study(config, out) -> StudyResult`
"""

from safer_instruct.study.run import StudyResult, study
from safer_instruct.study.settings import StudyConfig, load_study

__all__ = ["StudyConfig", "StudyResult", "load_study", "study"]
