"""Deliberately wrong steps, stage by stage: each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from civil_script import SCRIPT

from safer_instruct.cli import main

RUN = """\
domain: civility
source: {path: replies.csv, text: reply, id: id}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
filter: {prompt: {language: null}}
"""
REPLIES = """\
id,reply
e1,"It depends on many things, and the printer is one of them, as you of all people should know by now."
e2,"Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall."
e3,"Your parcel is where you told us to leave it, which is more than can be said for your good manners."
"""
DOMAIN = "name: x\ndescription: d\ncategories:\n  reply:\n    definition: d\n"
DPO = "model: embedded:smollm2-135m-instruct\ndata: [runs/evasive]\nout: runs/dpo\n"
EVALUATION = """\
domain: civility
prompts: {path: prompts.jsonl}
systems: {base: {model: "scripted:script.yaml"}, ours: {column: ours}}
baseline: base
judges: {scorer: {form: contrast, model: "scripted:script.yaml"}}
"""


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, (text, old)
    return text.replace(old, new)


FILES: dict[str, str | bytes] = {
    "replies.csv": REPLIES,
    "script.yaml": SCRIPT,
    "evasive.yaml": RUN,
    "evasive-domain.yaml": DOMAIN + "    guideline: g\n",
    # texts
    "latin.csv": 'id;reply\n1;"Schöne Grüße, das ist nicht unser Problem."\n'.encode("latin-1"),
    "utf16.csv": 'id,reply\n1,"It depends."\n'.encode("utf-16"),
    "empty.csv": "",
    "replies.xlsx": b"PK\x03\x04",
    # domain files
    "typo.yaml": DOMAIN + "    guidline: g\n    guideline: g\n",
    "half.yaml": DOMAIN,
    "tabs.yaml": "name: x\ncategories:\n\treply:\n",
    "colon.yaml": DOMAIN + "    guideline: Say: what happens next.\n",
    "quote.yaml": 'name: "x\ndescription: d\n',
    "pair.yaml": DOMAIN + "    guideline: g\n    examples:\n    - prompt: When?\n      chosen: Today.\n",
    # configs of runs
    "column.yaml": changed(RUN, "text: reply", "text: replay"),
    "path.yaml": changed(RUN, "path: replies.csv", "path: replys.csv"),
    "key.yaml": changed(RUN, "filter:", "filtr:"),
    "type.yaml": RUN + "respond: {drafts: two}\n",
    "switch.yaml": changed(RUN, "language: null", "langage: null"),
    "domain.yaml": changed(RUN, "domain: civility", "domain: civilty"),
    "category.yaml": changed(RUN, "id: id", "id: id, category: rude"),
    "expert.yaml": changed(RUN, 'expert: "scripted:script.yaml", ', ""),
    "judge.yaml": RUN + "verify: {form: question}\n",
    "provider.yaml": changed(RUN, 'expert: "scripted:', 'expert: "opnai:'),
    "weights.yaml": changed(RUN, 'inducer: "scripted:script.yaml"', 'inducer: "embedded:smollm2-135m"'),
    "adapter.yaml": changed(RUN, 'inducer: "scripted:script.yaml"', 'inducer: {model: "embedded:smollm2-135m-instruct", adapter: my-adapter}'),
    "other.yaml": RUN + "seed: 5\n",
    # labels
    "labels.csv": "id,good\ne1,yes\n",
    "words.csv": "id,label\ne1,perhaps\n",
    "strange.csv": "id;label\ne9;good\n",
    # training
    "loss.yaml": DPO + "loss: sigmod\n",
    "trainkey.yaml": DPO + "learning_rat: 0.1\n",
    "nopairs.yaml": changed(DPO, "runs/evasive", "runs/evasiv"),
    "nocolumn.yaml": changed(DPO, "[runs/evasive]", "[replies.csv]"),
    "start.yaml": DPO + "start: runs/sft\n",
    # evaluation
    "prompts.jsonl": '{"prompt": "Where is my parcel?"}\n{"prompt": "Is it open on Monday?"}\n',
    "system.yaml": EVALUATION,
    "baseline.yaml": changed(EVALUATION, "baseline: base", "baseline: bas"),
    "prompts.yaml": changed(EVALUATION, "prompts.jsonl", "prompt.jsonl"),
    "answers.yaml": changed(EVALUATION, "{column: ours}", "{responses: outputs/ours.json}"),
    "form.yaml": changed(EVALUATION, "form: contrast", "form: contrst"),
}


def typed(step: str) -> int:
    words = shlex.split(step)
    assert words[0] == "safer-instruct"
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with a mistake each, and beside them a finished run."""
    folder = tmp_path_factory.mktemp("wrong")
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert typed("safer-instruct run evasive.yaml") == 0
    return folder
