"""Deliberately wrong steps, stage by stage: each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

import gzip
import os
import shlex
import sys
from pathlib import Path

import pytest
from civil_script import SCRIPT

from safer_instruct.cli import main
from safer_instruct.errors import ConfigError
from safer_instruct.ledger import read_totals
from safer_instruct.models import adapter_path

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
STUDY = """\
sets: {ours: {run: evasive.yaml}, theirs: runs/evasive/pairs.jsonl}
pairs: 2
experiments:
  one:
    arms: {ours: {sets: [ours, theirs]}}
    evaluate: {domain: civility, prompts: {path: prompts.jsonl}, judges: {scorer: {form: contrast, model: "scripted:script.yaml"}}}
"""
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
    "evasive-domain.yaml": DOMAIN + "    guideline: g\n    criteria: [Is it clear.]\n",
    "list.yaml": DOMAIN + "    guideline: g\n    criteria: [Is it clear?]\n",
    # texts
    "latin.csv": 'id;reply\n1;"Schöne Grüße, das ist nicht unser Problem."\n'.encode("latin-1"),
    "utf16.csv": 'id,reply\n1,"It depends."\n'.encode("utf-16"),
    "packed.csv": gzip.compress(REPLIES.encode()),
    "paper.csv": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "lines.csv": '{"id": "e1", "reply": "It depends on many things."}\n{"id": "e2", "reply": "Nobody reads it."}\n',
    "array.csv": '[\n  {"id": "e1", "reply": "It depends on many things."}\n]\n',
    "replies.txt": REPLIES,
    "empty.csv": "",
    "replies.xlsx": b"PK\x03\x04",
    "excel.csv": b"PK\x03\x04\x14\x00[Content_Types].xml\x00",
    "several/a.csv": REPLIES,
    "several/b.csv": "nr,answer\n1,It depends.\n",
    "broken.jsonl": '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a\n',
    "nothing.jsonl": "",
    "lacking/summary.json": "{}",
    "lacking/run.yaml": "config: {domain: civility}\n",
    "lacking/pairs.jsonl": '{"prompt": "Where?", "chosen": "Here, at the desk.", "rejected": "Look."}\n',
    "project/run.yaml": RUN,
    "project/README.md": "# Our replies\n",
    "training/tuning.json": "{}",
    # domain files
    "typo.yaml": DOMAIN + "    guidline: g\n    guideline: g\n",
    "half.yaml": DOMAIN,
    "tabs.yaml": "name: x\ncategories:\n\treply:\n",
    "colon.yaml": DOMAIN + "    guideline: Say: what happens next.\n",
    "quote.yaml": 'name: "x\ndescription: d\n',
    "pair.yaml": DOMAIN + "    guideline: g\n    examples:\n    - prompt: When?\n      chosen: Today.\n",
    "languages.yaml": changed(DOMAIN, "description: d\n", "description: d\nlanguages: [EN]\n") + "    guideline: g\n    criteria: [Clear.]\n",
    "lists.yaml": DOMAIN + "    guideline: g\n    criteria: Is it clear.\n    contrast: good\n",
    "equal.yaml": DOMAIN + "    guideline: g\n    contrast: {good: clear, bad: clear}\n",
    "extends.yaml": "name: x\nextends: civilty\n",
    # configs of runs
    "several.yaml": changed(RUN, "path: replies.csv", "path: several"),
    "words.yaml": changed(RUN, "language: null", "language: null, length: {min_words: 40, max_words: 4}"),
    "column.yaml": changed(RUN, "text: reply", "text: replay"),
    "path.yaml": changed(RUN, "path: replies.csv", "path: replys.csv"),
    "pipe.yaml": changed(RUN, "path: replies.csv", "path: pipe.csv"),
    "loop.yaml": changed(RUN, "path: replies.csv", "path: loop.csv"),
    "dangling.yaml": changed(RUN, "path: replies.csv", "path: dangling.csv"),
    "port.yaml": changed(RUN, 'expert: "scripted:script.yaml"', 'expert: {model: "openai:x", base_url: "http://127.0.0.1:99999/v1"}'),
    "price.yaml": changed(RUN, 'expert: "scripted:script.yaml"', 'expert: {model: "openai:x", price_per_million: [1]}'),
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
    "key2.yaml": changed(RUN, 'expert: "scripted:script.yaml"', 'expert: {model: "openai:x", api_key_env: gsk_madeup1234567890abcd}'),
    "secret.yaml": changed(RUN, 'expert: "scripted:script.yaml"', 'expert: {model: "openai:x", api_key_env: sk-abc}'),
    "other.yaml": RUN + "seed: 5\n",
    "logprob.yaml": changed(RUN, "filter: {", "filter: {min_logprob: 5, "),
    "inducer.yaml": changed(RUN, 'expert: "scripted:script.yaml"', 'expert: {model: "embedded:smollm2-135m-instruct", adapter: civility-inducer}'),
    "prices.yaml": RUN + "prices: my-prices.yaml\n",
    # labels
    "labels.csv": "id,good\ne1,yes\n",
    "words.csv": "id,label\ne1,perhaps\n",
    "none.csv": "id,label\ne1,\n",
    "strange.csv": "id;label\ne9;good\n",
    "labels16.csv": "id,label\ne1,good\n".encode("utf-16"),
    "scored.csv": "id,label,score\ne1,good,verify.nothing\n",
    # training
    "loss.yaml": DPO + "loss: sigmod\n",
    "project.yaml": changed(DPO, "out: runs/dpo", "out: project") + "holdout: {count: 1}\n",
    "file.yaml": changed(DPO, "out: runs/dpo", "out: replies.csv") + "holdout: {count: 1}\n",
    "trainkey.yaml": DPO + "learning_rat: 0.1\n",
    "nopairs.yaml": changed(DPO, "runs/evasive", "runs/evasiv"),
    "nocolumn.yaml": changed(DPO, "[runs/evasive]", "[replies.csv]"),
    "promptless.yaml": changed(DPO, "[runs/evasive]", "[{path: runs/evasive/pairs.jsonl, prompt: ask}]"),
    "few.yaml": DPO,
    "all.yaml": DPO + "holdout: {count: 40}\n",
    "smollm.yaml": changed(DPO, "embedded:smollm2-135m-instruct", "smollm2") + "holdout: {count: 1}\n",
    "three.yaml": DPO + "holdout: {count: 1}\n",
    "start.yaml": DPO + "holdout: {count: 1}\nstart: other-base\n",
    "other-base/adapter_config.json": "{}",
    "other-base/tuning.json": '{"base": "Qwen/Qwen2.5-0.5B", "base_sha256": "00"}',
    "notes.md": "# Notes\n",
    "page.html": "<p>my page</p>",
    "unanswered.csv": "id,answer\n0,\n",
    # a study
    "model.yaml": f"model: embedded:smollm9\n{STUDY}",
    "seeds.yaml": f"seeds: []\n{STUDY}",
    "study.yaml": STUDY,
    "held.yaml": changed(changed(STUDY, "[ours, theirs]}}\n", "theirs}}\n    held_out: {of: theirs, count: 300}\n"), "prompts: {path: prompts.jsonl}, ", ""),
    "empty.yaml": changed(STUDY, "runs/evasive/pairs.jsonl", "prompts.jsonl"),
    "set.yaml": changed(STUDY, "runs/evasive/pairs.jsonl", "runs/dosk"),
    "judges.yaml": changed(STUDY, '"scripted:script.yaml"', '"embedded:smollm9"'),
    # evaluation
    "prompts.jsonl": '{"prompt": "Where is my parcel?"}\n{"prompt": "Is it open on Monday?"}\n',
    "system.yaml": EVALUATION,
    "yours.yaml": changed(EVALUATION, '{form: contrast, model: "scripted:script.yaml"}', '{form: question, model: "openai:YOUR-MODEL"}'),
    "yours2.yaml": changed(STUDY, '{form: contrast, model: "scripted:script.yaml"}', '{form: question, model: "openai:YOUR-MODEL"}'),
    "baseline.yaml": changed(EVALUATION, "baseline: base", "baseline: bas"),
    "prompts.yaml": changed(EVALUATION, "prompts.jsonl", "prompt.jsonl"),
    "answers.yaml": changed(EVALUATION, "{column: ours}", "{responses: outputs/ours.json}"),
    "priced.yaml": EVALUATION + "prices: my-prices.yaml\n",
    "ask.yaml": changed(EVALUATION, "prompts.jsonl}", "prompts.jsonl, prompt: ask}"),
    "tuned.yaml": changed(EVALUATION, "{column: ours}", '{model: {model: "embedded:smollm2-135m-instruct", adapter: runs/nowhere}}'),
    "begun.yaml": changed(EVALUATION, "{column: ours}", '{model: {model: "embedded:smollm2-135m-instruct", adapter: runs/evasive}}'),
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
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "pipe.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "dangling.csv").symlink_to("gone.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert typed("safer-instruct run evasive.yaml") == 0
    return folder


_READING = ("status", "export --format jsonl", "audit", "report")  # a run's summary
STEPS = [
    # --- the domain file
    ("domain new Evasive --no-input", ("'Evasive' cannot name a domain; use small letters",)),
    ("domain new civility --no-input", ("'civility' is the name of a shipped domain", "choose another name", "domain new my-civility --extends civility")),
    ("domain check evasive-domain.yml", ("evasive-domain.yml", "did you mean 'evasive-domain.yaml'?")),
    ("domain chekc evasive-domain.yaml", ("No such command 'chekc'. Did you mean 'check'?",)),
    ("domain check typo.yaml", ("typo.yaml:6: unknown key 'categories.reply.guidline'; did you mean 'guideline'?",)),
    ("domain check half.yaml", ("half.yaml:4: the key 'categories.reply.guideline' is missing",)),
    ("domain check tabs.yaml", ("tabs.yaml:3: not valid YAML", "indent with spaces, not with tabs")),
    ("domain check colon.yaml", ("colon.yaml:6: not valid YAML", "put a value that holds ': ' in quotes")),
    ("domain check quote.yaml", ("not valid YAML", "the quote that opens in line 1 is never closed")),
    ("domain check list.yaml", ("list.yaml:7: not valid YAML", "put each value within [...] in quotes")),
    ("domain check pair.yaml", ("pair.yaml:8: the key 'categories.reply.examples.0.rejected' is missing",)),
    ("domain check languages.yaml", ("languages.yaml:3: 'languages': 'EN' is no code of a language that is told; write two small letters (ISO 639-1)",)),
    ("run inducer.yaml", ("adapter 'civility-inducer' was tuned to induce instructions, not to write responses; give models.expert another, or none",)),
    ("run logprob.yaml", ("logprob.yaml:4: 'filter.min_logprob': Input should be less than or equal to 0",)),
    ("domain check evasive.yaml", ("evasive.yaml is a config of a run: safer-instruct run",)),
    (
        "domain check lists.yaml",
        (
            "lists.yaml:7: 'categories.reply.criteria': expected a list, such as '[one, two]', or each on a line behind '- '",
            "lists.yaml:8: 'categories.reply.contrast': expected keys with values, each on a line below it: also, bad, good",
        ),
    ),
    ("domain check equal.yaml", ("equal.yaml:7: 'categories.reply.contrast': 'good' and 'bad' say the same, so nothing tells them apart",)),
    ("domain check extends.yaml", ("extends.yaml:2: 'extends': domain 'civilty'", "did you mean 'civility'?")),
    # --- the config
    ("init evasive2 --text reply", ("--text is for --source",)),
    ("init evasive2 --source excel.csv --text reply", ("excel.csv:1: the header cannot be read", "it is an Excel workbook or another archive")),
    ("init evasive2 --source replys.csv", ("source 'replys.csv'", "no file, folder or glob match; did you mean 'replies.csv'?")),
    (
        "init evasive2 --source replies.csv",
        ("no column 'text'; columns: id, reply; name the column with the text by --text, and that with your own id by --id",),
    ),
    ("init evasive2 --source replies.csv --text reply --id Nr", ("no column 'Nr'; columns: id, reply",)),
    ("init evasive2 --source replies.csv --txt reply", ("No such option: --txt", "--text")),
    ("init evasive2 --source replies.xlsx --text reply", ("replies.xlsx: spreadsheets are not read; save it as CSV in UTF-8",)),
    ("init evasive2 --source latin.csv --text reply", ("latin.csv:2: invalid UTF-8", "save as 'CSV UTF-8'")),
    ("init evasive2 --source utf16.csv --text reply", ("utf16.csv", "UTF-16", "save as 'CSV UTF-8'")),
    ("init evasive2 --source packed.csv --text reply", ("packed.csv:1: the header cannot be read", "it is compressed", "rename it to packed.csv.gz")),
    ("init evasive2 --source paper.csv --text reply", ("paper.csv:1: the header cannot be read", "it looks like a PDF", "rename it so that it ends in .pdf")),
    ("init evasive2 --source lines.csv --text reply", ("it looks like JSON lines, whatever its name; rename it so that it ends in .jsonl",)),
    ("init evasive2 --source array.csv --text reply", ("it looks like a JSON array, whatever its name; rename it so that it ends in .json",)),
    ("init evasive2 --source replies.txt --text reply", ("replies.txt: there are no columns in it", "rename it so that it ends in .csv")),
    ("init evasive2 --source empty.csv --text reply", ("empty.csv: none of its first rows can be used: it holds none",)),
    ("init evasive --source replies.csv --text reply", ("evasive.yaml exists already; give another --dir, or move it away",)),
    # --- the run
    ("run nowhere.yaml", ("nowhere.yaml: no such file (looked in",)),
    ("run evasive", ("evasive: no such file (looked in", "did you mean 'evasive.yaml'?")),
    ("run evasive-domain.yaml", ("evasive-domain.yaml is a domain file; give a config that names it under 'domain'",)),
    ("run replies.csv", ("replies.csv: expected keys and values at the top, such as 'key: value', found text; is it the right file?",)),
    ("run prompts.jsonl", ("prompts.jsonl looks like JSON lines, which hold data and no settings; give the YAML file that names it",)),
    ("run several", ("several is a folder; give the YAML file itself",)),
    ("run several.yaml", ("several/b.csv: no column 'reply'; columns: nr, answer",)),
    ("run words.yaml", ("words.yaml:", "min_words 40 is more than max_words 4: every text would be dropped")),
    ("run column.yaml", ("no column 'replay' (nearest: 'reply'); columns: id, reply",)),
    ("run path.yaml", ("source 'replys.csv'", "did you mean 'replies.csv'?")),
    ("run pipe.yaml", ("source 'pipe.csv' is a pipe and no file: write what comes from it to a file, and name that",)),
    ("init evasive2 --source pipe.csv --text reply", ("source 'pipe.csv' is a pipe and no file",)),
    (
        "run loop.yaml",
        ("source 'loop.csv', looked for in ", ": it is a link to loop.csv, which leads back to itself; link it to a file, or name the file itself"),
    ),
    ("run dangling.yaml", ("source 'dangling.csv'", ": it is a link to gone.csv, which leads nowhere; link it to a file, or name the file itself")),
    (
        "run port.yaml",
        (
            "port.yaml:3: 'models.expert.base_url': 'http://127.0.0.1:99999/v1' is no address such as ",
            "; give it a port from 1 to 65535",
        ),
    ),
    (
        "run price.yaml",
        ("price.yaml:3: 'models.expert.price_per_million': needs two prices in US dollars: of a million tokens read, and of a million written",),
    ),
    (f"run evasive.yaml --out runs/{'x' * 300}", ("a name in this path is longer than the file system takes", "choose a shorter one")),
    ("run key.yaml", ("key.yaml:4: unknown key 'filtr'; did you mean 'filter'?",)),
    ("run type.yaml", ("type.yaml:5: 'respond.drafts': Input should be a valid integer",)),
    ("run switch.yaml", ("switch.yaml:4: there is no filter 'langage' to switch off; did you mean 'language'?",)),
    ("run domain.yaml", ("domain 'civilty'", "did you mean 'civility'?")),
    ("run category.yaml", ("error: category.yaml:", ": 'source.category': domain 'civility' has no category 'rude'; it has: support")),
    ("run expert.yaml", ("models.expert is needed",)),
    ("run judge.yaml", ("judge.yaml: verify.form 'question' needs models.judge",)),
    ("run provider.yaml", ("model 'opnai:script.yaml': unknown provider 'opnai'; write one of embedded:NAME, openai:NAME",)),
    ("run weights.yaml", ("model 'smollm2-135m' is not in", "did you mean 'smollm2-135m-instruct'?")),
    ("run adapter.yaml", ("adapter 'my-adapter': neither a folder at", "nor one of civility-expert, civility-inducer")),
    ("run evasive.yaml --out project", ("project holds run.yaml, README.md and no ledger of a run, and a run would write over that; choose another --out",)),
    ("run evasive.yaml --out project --fresh", ("project holds run.yaml, README.md and no ledger of a run",)),
    ("run evasive.yaml --out runs/evasive --fresh --dry-run", ("--dry-run and --fresh exclude each other",)),
    ("run runs/evasive/run.yaml", ("run.yaml is what a run keeps of its config; give the config itself",)),
    *(
        (f"{command} lacking", ("lacking/summary.json is damaged (it lacks rows, set_aside, dropped, ...); run again to write it anew",))
        for command in _READING
    ),
    ("status training", ("training holds no finished run (it is the folder of a training",)),
    ("run other.yaml --out runs/evasive", ("holds a run of another config: seed: 0, now 5. Add", "--continue", "--fresh")),
    ("run evasive.yaml --out replies.csv/run", ("replies.csv/run cannot be a run directory: replies.csv is a file; choose another --out",)),
    ("run secret.yaml", ("secret.yaml:3: 'models.expert.api_key_env': is no name of an environment variable, such as OPENAI_API_KEY; put the key into one",)),
    ("run prices.yaml", ("prices.yaml:5: 'prices': my-prices.yaml: no such file (looked in",)),
    ("run evasive.yaml --sample 3", ("--sample is for --dry-run",)),
    ("models pull replies.csv", ("replies.csv is no GGUF file",)),
    # --- looking at it
    ("status runs/evasif", ("runs/evasif holds no finished run (there is no such folder; did you mean 'evasive'?)",)),
    (
        "filters replies.csv",
        ("replies.csv holds no finished run (it is a file)", "give the folder of a run; for a data set there is: safer-instruct audit replies.csv"),
    ),
    ("filters runs/evasive --dropped-by verify.beter", ("no example has a verdict 'verify.beter'; did you mean 'verify.better'?",)),
    ("filters runs/evasive --dropped-by likelyhood", ("no example has a verdict 'likelyhood'; there are consistency, dedup.prompt, dedup.text,",)),
    ("filters runs/evasive --dropped-by verify.better", ("'verify.better' dropped no example; what did: nothing",)),
    ("why runs/evasive e9", ("no example has the id 'e9'; pairs.jsonl and examples.parquet hold the ids",)),
    ("status runs", ("runs holds no finished run (runs in it: evasive); give one of them, such as runs/evasive",)),
    ("review runs/evasif", ("runs/evasif holds no finished run", "did you mean 'evasive'?")),
    ("review several", ("several holds no finished run (summary.json is missing)",)),
    ("status evasive.yaml", ("evasive.yaml holds no finished run (it is a file); give the run directory, such as runs/evasive",)),
    ("status .", (". holds no finished run (runs in it: lacking)", "give the run directory, such as runs/NAME")),
    ("status runs/evasive/pairs.jsonl", ("holds no finished run (it is a file); give the folder: runs/evasive",)),
    # --- export, audit, labels
    ("export --format jsonl", ("DIR is missing: a finished run directory",)),
    ("export runs/evasive --format csv --out replies.csv", ("replies.csv exists already, and holds something else than what would be written",)),
    ("export runs/evasive --format jsonl --out runs/evasive/ledger.sqlite", ("runs/evasive/ledger.sqlite is a file of a run",)),
    ("export runs/evasive --format parquet --out out.jsonl", ("out.jsonl will be written, and format 'parquet' does not end in .jsonl; give --out a name",)),
    ("export runs/evasive --format kto --out out.CSV", ("out.CSV will be written, and format 'kto' does not end in .CSV",)),
    ("report runs/evasive --out replies.csv", ("replies.csv will be written, and does not end in .html",)),
    ("report evasive.yaml", ("evasive.yaml holds no finished run (it is a file); give the run directory, such as runs/evasive",)),
    ("report runs/evasive/pairs.jsonl", ("holds no finished run (it is a file); give the folder: runs/evasive",)),
    ("audit runs/evasive/examples.parquet", ("is a file of a run, and not the one of its pairs; give the folder: runs/evasive",)),
    ("report runs/evasive --out page.html", ("page.html exists already, and holds something else than what would be written",)),
    ("audit runs/evasive --out notes.md", ("notes.md exists already, and holds something else",)),
    ("export runs/evasive --format jsonl --near 0.3", ("--near is for --split",)),
    ("audit runs/evasive --out runs/evasive/README.md", ("runs/evasive/README.md is a file of a run; choose another name",)),
    ("ledger runs/evasive --export runs/evasive/pairs.jsonl", ("runs/evasive/pairs.jsonl is a file of a run",)),
    ("ledger runs/evasive --export prompts.jsonl", ("prompts.jsonl exists already, and holds something else",)),
    ("audit runs/evasive --out replies.csv", ("replies.csv will be written, and does not end in .md",)),
    ("ledger runs/evasive --export replies.csv", ("replies.csv will be written, and does not end in .jsonl",)),
    ("audit nothing.jsonl", ("nothing.jsonl: holds no row",)),
    ("export runs/evasif --format messages", ("safer-instruct run CONFIG --out runs/evasif",)),
    ("export runs/evasive --format mesages", ("unknown format 'mesages'; did you mean 'messages'? choose one of jsonl, messages",)),
    ("export runs/evasive", ("give --format, such as jsonl or messages; '--format list' names them all",)),
    ("export runs/evasive --format jsonl --reviewed", ("runs/evasive has no review yet; begin one: safer-instruct review runs/evasive",)),
    ("export runs/evasive --format jsonl --split test", ("split 'test': it gives no share; write NAME=SHARE", "such as test=0.1")),
    ("export runs/evasive --format jsonl --split test=0.1", ("the split 'test' would be empty: 0.1 of 3 pairs is less than one; give a larger share",)),
    ("export runs/evasive --format jsonl --out runs", ("runs is a folder; give the name of a file, such as runs/NAME",)),
    ("export runs/evasive --format datasets --out replies.csv", ("replies.csv is no folder; choose another --out",)),
    ("report runs/evasive --out runs", ("runs is a folder; give the name of a file, such as runs/NAME",)),
    ("audit runs", ("runs is no data set; runs in it: evasive; give one of them, such as runs/evasive",)),
    ("value runs", ("runs is no data set; runs in it: evasive; give one of them, such as runs/evasive",)),
    ("audit runs/evasive --prompt question --chosen nosuch", ("runs/evasive: the columns of a run are known; leave out --prompt and --chosen",)),
    (
        "audit evasive.yaml",
        ("evasive.yaml: the ending tells no format; give a file of rows, whose name ends in one of .jsonl .ndjson .json .csv .tsv .parquet (or",),
    ),
    ("audit /dev/null", ("source '/dev/null' is a device and no file",)),
    ("report runs/evasive evasive.yaml", ("evasive.yaml: the ending tells no format; give a file of rows",)),
    (
        "report runs/evasive mine.jsonl",
        ("mine.jsonl is missing; what is to stand beside the run is the folder of another, or a dataset: JSONL, CSV or Parquet",),
    ),
    ("audit mine.jsonl", ("source 'mine.jsonl'", "no file, folder or glob match; a relative path begins in that folder")),
    ("audit replies.csv --prompt id --chosen reply --rejected replay", ("no column 'replay' for the rejected response; columns: id, reply",)),
    ("audit runs/evasive --show repeat", ("there is no check 'repeat'; choose one of rows, empty",)),
    ("calibrate runs/evasive", ("give --labels FILE, --reviewed, or --sheet FILE to write one to label",)),
    ("calibrate runs/evasive --labels labels.csv", ("labels.csv: the column 'label' is missing among id, good",)),
    ("calibrate runs/evasive --labels words.csv", ("words.csv:2: label 'perhaps' is neither 1, good, true, yes nor 0, bad, false, no",)),
    ("calibrate runs/evasive --labels labls.csv", ("labls.csv: no such file (looked in ",)),
    (
        "calibrate runs/evasive --labels labels16.csv",
        ("labels16.csv: cannot be read as a CSV file in UTF-8: ", "the file looks like UTF-16, convert it to UTF-8", "save as 'CSV UTF-8'"),
    ),
    ("calibrate runs/evasive --labels scored.csv", ("scored.csv: the run has no score 'verify.nothing', which a label names; there are: consistency,",)),
    ("calibrate runs/evasive --labels none.csv", ("none.csv: 0 good and 0 bad of 1 rows carry a label", "label more examples of the run")),
    ("calibrate runs/evasive --labels none.csv --config evasve.yaml", ("evasve.yaml: no such file (looked in ",)),
    ("calibrate runs/evasive --labels labels.csv --precision 0", ("Invalid value for '--precision'", "0.001")),
    ("calibrate runs/evasive --sheet replies.csv", ("replies.csv exists already, and is no such sheet; give --sheet another name",)),
    ("calibrate runs/evasive --labels strange.csv", ("strange.csv: the run has no scored example with id 'e9'",)),
    ("value runs/evasive --out runs/evasive", ("runs/evasive holds a run, which keeps a ledger of its own; choose another --out",)),
    ("value runs/evasive --out replies.csv", ("replies.csv is no folder; choose another --out",)),
    ("evaluate system.yaml --out training", ("training holds ", " of a model or of its training; choose another --out")),
    ("evaluate system.yaml --out runs/evasive", ("runs/evasive holds a run, which keeps a ledger of its own; choose another --out",)),
    ("run key2.yaml", ("key2.yaml:3: 'models.expert.api_key_env': is no name of an environment variable",)),
    # --- training
    ("train few.yaml", ("'few.yaml' is none of sft, dpo; write: safer-instruct train sft|dpo few.yaml",)),
    ("train dpo evasive.yaml", ("evasive.yaml is a config of a run: safer-instruct run",)),
    ("train dpo loss.yaml", ("loss.yaml:4: 'loss': Input should be 'sigmoid', 'ipo'",)),
    ("train dpo project.yaml", ("project holds README.md and no training, and one would write over that; choose another 'out'",)),
    ("train dpo project.yaml --fresh", ("project holds README.md and no training",)),
    ("train dpo few.yaml --out runs/evasive --fresh", ("runs/evasive holds README.md and no training",)),
    ("train dpo file.yaml", ("replies.csv is no folder; choose another 'out'",)),
    ("train dpo trainkey.yaml", ("trainkey.yaml:4: unknown key 'learning_rat'; did you mean 'learning_rate'?",)),
    ("train dpo nopairs.yaml", ("source 'runs/evasiv'", "did you mean 'evasive'?")),
    ("train dpo nocolumn.yaml", ("replies.csv:2: no column 'chosen'; this row has id, reply",)),
    ("train dpo promptless.yaml", ("pairs.jsonl:1: no column 'ask'; this row has prompt, chosen, rejected",)),
    ("train dpo few.yaml", ("the split leaves 3 pairs to train on and 0 held out; both are needed: write 'holdout: {count: N}'",)),
    (
        "train dpo all.yaml",
        ("the split leaves 0 pairs to train on and 3 held out; both are needed: write a smaller count than 'holdout: {count: 40}', or give more pairs",),
    ),
    (
        "models export runs/evasive --to merged --quantization q8_0",
        ("'merged' knows no quantisation 'q8_0'; 'merged' has none: leave --quantization out, or choose --to gguf",),
    ),
    (
        "models export runs/evasive --to gguf-lora --quantization q4",
        ("leave --quantization out, or choose --to gguf (f32, f16, bf16, q8_0); --to embedded (int8, float32)",),
    ),
    ("models export runs/evasive --to merged", ("runs/evasive holds no adapter and no model", "give the folder that 'train' or 'tune' wrote")),
    # --- a study
    ("study model.yaml", ("model 'smollm9' is not in",)),
    ("study set.yaml", ("runs/dosk",)),
    ("study seeds.yaml", ("seeds.yaml:1: 'seeds': needs at least 1",)),
    ("study empty.yaml", ("prompts.jsonl", "no usable preference pair")),
    ("study study.yaml --out project", ("project holds something, and no study; choose another --out",)),
    ("study study.yaml --out project --dry-run", ("project holds something, and no study; choose another --out",)),
    ("study study.yaml --out runs/evasive --dry-run", ("runs/evasive holds something, and no study",)),
    ("study study.yaml --out replies.csv --dry-run", ("replies.csv is no folder; choose another --out",)),
    ("study held.yaml --dry-run", ("experiment 'one': the set 'theirs' has 0 pairs to train on (3 more overlap with evaluation prompts), too few",)),
    ("study judges.yaml", ("model 'smollm9' is not in",)),
    # --- evaluation
    ("evaluate", ("give CONFIG, or --power",)),
    ("evaluate baseline.yaml", ("baseline.yaml: baseline 'bas' is none of the systems: base, ours",)),
    ("evaluate prompts.yaml", ("source 'prompt.jsonl'", "did you mean 'prompts.jsonl'?")),
    ("evaluate system.yaml --sheet replies.csv", ("replies.csv exists already, and is no such sheet; give --sheet another name",)),
    ("evaluate system.yaml --sheet people.html", ("people.html will be written, and does not end in .csv",)),
    ("evaluate system.yaml --sheet page.csv", ("page.html, where the page would go, exists already; give --sheet another name",)),
    ("evaluate system.yaml --answers unanswered.csv", ("unanswered.csv: no row is answered; write A, B or tie into the column 'answer'",)),
    ("evaluate --power --sheet s.csv", ("--power and --sheet exclude each other",)),
    ("evaluate system.yaml --power", ("--power is reckoned without a CONFIG",)),
    ("evaluate yours.yaml", ("'judges.scorer.model': openai:YOUR-MODEL is not filled in yet",)),
    ("study yours2.yaml", ("'judges.scorer.model': openai:YOUR-MODEL is not filled in yet",)),
    ("evaluate priced.yaml", ("'prices': ", "my-prices.yaml: no such file (looked in")),
    ("evaluate system.yaml --n 3", ("--n is for --sheet",)),
    ("evaluate system.yaml --win-rate 0.6", ("--win-rate is for --power",)),
    ("calibrate runs/evasive --labels labels.csv --n 3", ("--n is for --sheet",)),
    ("calibrate runs/evasive --sheet sheet.csv --precision 0.9", ("--sheet and --precision exclude each other",)),
    ("calibrate runs/evasive --labels labels.csv --precision 0.9 --max-bad 0.1", ("--precision and --max-bad exclude each other",)),
    ("calibrate runs/evasive --labels labels.csv --confidence 0.9", ("--confidence is for --max-bad",)),
    ("review runs/evasive --labels sheet.csv --blind", ("--blind and --labels exclude each other",)),
    ("filters runs/evasive --seed 3", ("--seed is for --dropped-by",)),
    ("select runs/evasive --semantic-of pair", ("--semantic-of is for --semantic",)),
    ("select runs/evasive --embedder minilm", ("--embedder is for --n and --quota and --semantic",)),
    ("train dpo few.yaml --sharding none", ("--sharding is for --launch",)),
    (
        "value runs/evasive --base-url http://localhost:1/v1",
        ("--base-url: 'base_url' is for remote models, not for 'embedded:smollm2-135m-instruct', which works in this",),
    ),
    ("value runs/evasive --max-cost 1", ("--max-cost: model 'embedded:smollm2-135m-instruct' works in this process",)),
    ("value runs/evasive --model served:w --base-url http://localhost:1/v1", ("--base-url: 'base_url' is for remote models, not for 'served:w'",)),
    (
        "value runs/evasive --model openai:m --base-url http://127.0.0.1:9/v1",
        ("openai:m cannot score after a chat", "leave models.scorer (for 'value' --model) at its default, or name an embedded model there"),
    ),
    ("value runs/evasive --model openai:m --base-url https://me:hunter2@host/v1", ("--base-url: 'base_url': holds a secret",)),
    ("value runs/evasive --layout raw --system Hello", ("--system is for --layout chat",)),
    ("evaluate system.yaml --alpha 0.05", ("--alpha is for --power",)),
    ("evaluate system.yaml --sample 3", ("--sample is for --dry-run",)),
    ("evaluate system.yaml --answers replies.csv", ("replies.csv: the column 'answer' is missing",)),
    ("evaluate ask.yaml", ("prompts.jsonl: no usable prompt; the first row: no column 'ask'; this row has prompt; name it in 'prompt'",)),
    ("evaluate system.yaml", ("no column 'ours' with answers; the columns are: prompt",)),
    ("evaluate answers.yaml", ("source 'outputs/ours.json'", "no file, folder or glob match")),
    ("evaluate tuned.yaml", ("adapter 'runs/nowhere': neither a folder at",)),
    ("evaluate begun.yaml", ("adapter 'runs/evasive'", "holds none; if its training was stopped, give that command again")),
    ("evaluate form.yaml", ("form.yaml:5: 'judges.scorer.form': Input should be 'contrast', 'question' or 'reward'",)),
]


@pytest.mark.parametrize(("step", "said"), STEPS, ids=[step for step, _ in STEPS])
def test_a_wrong_step_is_told_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str, said: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    assert typed(f"safer-instruct {step}") == 2
    told = capsys.readouterr()
    message = " ".join((told.err + told.out).split())
    assert all(phrase in message for phrase in said), message
    assert "Traceback" not in told.err


def test_a_study_that_lacks_something_has_made_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("model", "set", "judges", "empty"):
        assert typed(f"safer-instruct study {name}.yaml") == 2 and not Path("runs", name).exists()


def test_the_adapters_that_are_named_are_such_as_a_model_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nor one of civility-expert, civility-inducer$"):
        adapter_path("gone", tmp_path)


@pytest.mark.parametrize(
    ("step", "module", "extra"),
    [("review runs/evasive --no-browser", "uvicorn", "review"), ("train dpo three.yaml", "transformers", "train")],
)
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str, module: str, extra: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, module, None)
    assert typed(f"safer-instruct {step}") == 2
    told = capsys.readouterr()
    assert f"needs {module}, which is not installed; run: pip install 'safer-instruct[{extra}]'" in told.err
    assert "opens once" not in told.out


def test_a_model_of_the_cache_without_its_prefix_is_told_before_any_hub_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    asked: list[str] = []

    def refuse(where: str) -> None:
        asked.append(where)
        raise OSError("no such repository")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    monkeypatch.chdir(folder)
    assert typed("safer-instruct train dpo smollm.yaml") == 2
    told = capsys.readouterr().err
    assert "model 'smollm2': no such folder at " in told and "did you mean 'embedded:smollm2-135m-instruct'? " in told and asked == []
    (folder / "gpt2.yaml").write_text(FILES["smollm.yaml"].replace("model: smollm2", "model: gpt2"), encoding="utf-8")
    assert typed("safer-instruct train dpo gpt2.yaml") == 2
    assert asked == ["gpt2"] and "one of the cache is written 'embedded:gpt2'" in capsys.readouterr().err


def test_an_adapter_of_another_base_is_refused_before_training(
    folder: Path, embedded_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(folder)
    assert typed("safer-instruct train dpo start.yaml") == 2
    told = capsys.readouterr().err
    assert "other-base' was tuned from Qwen/Qwen2.5-0.5B" in told and "'model' is embedded:smollm2-135m-instruct: other weights; name the same model" in told


def test_answers_that_are_missing_are_told_before_anybody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert typed("safer-instruct evaluate system.yaml --out early") == 2
    assert read_totals(folder / "early" / "ledger.sqlite") == []
