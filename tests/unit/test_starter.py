"""What `init` writes is valid as it stands, and never written over anything."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from safer_instruct.config import load_config
from safer_instruct.domain import load_domain, shipped_domains
from safer_instruct.domainfile import NewDomain, as_text, place_for
from safer_instruct.errors import ConfigError, SourceError
from safer_instruct.example import Example
from safer_instruct.filters.registry import open_filters
from safer_instruct.starter import StarterSource, write_starter

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("name", shipped_domains())
def test_the_config_of_a_shipped_domain_is_valid_as_written(tmp_path: Path, name: str) -> None:
    assert write_starter(name, tmp_path) == [tmp_path / f"{name}.yaml"]
    config, domain = load_config(tmp_path / f"{name}.yaml"), load_domain(name)
    assert config.domain == name and load_domain(config.domain, config.base) == domain
    assert (config.source.category_column is not None) == (len(domain.categories) > 1), "rows must say their category where there are several"
    assert config.verify.form == "contrast" or config.models.judge is not None


def test_a_new_domain_comes_with_a_valid_domain_file(tmp_path: Path) -> None:
    assert write_starter("my-domain_2", tmp_path) == [tmp_path / "my-domain_2.yaml", tmp_path / "my-domain_2-domain.yaml"]
    config = load_config(tmp_path / "my-domain_2.yaml")
    domain = load_domain(config.domain, config.base)
    assert domain.name == "my-domain_2" and len(domain.categories) == 1 and config.source.category_column is None
    assert all(category.contrast for category in domain.categories.values()) and config.verify.form == "contrast"


def test_what_is_written_out_agrees_with_the_defaults(tmp_path: Path) -> None:
    write_starter("mine", tmp_path)
    config = load_config(tmp_path / "mine.yaml")
    plain = "domain: x\nsource: {path: y}\nmodels: {inducer: 'scripted:', expert: 'scripted:'}\n"
    (tmp_path / "plain.yaml").write_text(plain, encoding="utf-8")
    default = load_config(tmp_path / "plain.yaml")
    assert (config.induce, config.respond, config.verify, config.seed) == (default.induce, default.respond, default.verify, default.seed)
    written, unwritten = open_filters(config.filter, tmp_path), open_filters(default.filter, tmp_path)
    assert (written.prompt, written.pair) == (unwritten.prompt, unwritten.pair)
    unnamed = {"text": {}, "prompt": {}, "pair": {}}
    assert config.filter.model_copy(update=unnamed) == default.filter.model_copy(update=unnamed)


def test_texts_and_instructions_are_kept_in_the_languages_of_the_domain(tmp_path: Path) -> None:
    domain = "name: mine\ndescription: d\nlanguages: [de, fr]\ncategories: {reply: {definition: d, guideline: g, criteria: [c]}}\n"
    (tmp_path / "mine-domain.yaml").write_text(domain, encoding="utf-8")
    write_starter("mine", tmp_path)
    config = load_config(tmp_path / "mine.yaml")
    assert config.filter.prompt is not None and config.filter.prompt["language"] == {"languages": ["de", "fr"]}
    text = open_filters(config.filter, tmp_path).text
    kept = ["Sie fragen, ob die Bibliothek am Samstag geöffnet ist. Nein.", "Vous demandez si la bibliothèque est ouverte le samedi. Non."]
    dropped = ["You ask whether the library is open on Saturday. It is not.", "Ok."]
    assert [all(one.verdict(Example(id="1", text=said, category="reply", file="f", line=1)).passed for one in text) for said in kept + dropped] == [
        True,
        True,
        False,
        False,
    ]


def test_every_line_explains_itself(tmp_path: Path) -> None:
    write_starter("mine", tmp_path)
    for path in tmp_path.iterdir():
        text = path.read_text("utf-8")
        assert text.startswith("# ") and text.count("# ") >= 4 and "{" + "name}" not in text and text.endswith("\n")


@pytest.mark.parametrize("present", ["mine.yaml", "mine-domain.yaml"])
def test_existing_files_are_never_touched_and_nothing_is_half_written(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{present} exists already"):
        write_starter("mine", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [present] and (tmp_path / present).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Upper", "white space", ".hidden", "-option", "x.yaml", "x\n"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a domain"):
        write_starter(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_domain_of_ones_own_under_the_name_of_a_shipped_one_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'civility' is the name of a shipped domain.* choose another name.* my-civility --extends civility$"):
        place_for(NewDomain("civility"), tmp_path)
    (tmp_path / "civility-domain.yaml").write_text(as_text(NewDomain("civility")), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"civility-domain\.yaml would not be read; rename that file to my-civility-domain\.yaml"):
        write_starter("civility", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["civility-domain.yaml"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert write_starter("civility", tmp_path / "new" / "folder")[0].is_file()


@pytest.mark.parametrize("column", ["reply", "the reply", "yes", "r\u00e9ponse: 'a'"])
def test_texts_that_are_there_already_stand_in_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str) -> None:
    (tmp_path / "texts.csv").write_text(f'nr,"{column}"\n1,No.\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write_starter("mine", tmp_path / "folder", StarterSource("texts.csv", column, "nr"))
    config = load_config(tmp_path / "folder" / "mine.yaml")
    assert (config.source.path, config.source.text, config.source.id) == ("../texts.csv", column, "nr")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (StarterSource("nothere.csv"), "no file, folder or glob"),
        (StarterSource("texts.csv"), "no column 'text'; columns: nr, reply; name the column with the text by --text, and that with your own id by --id$"),
        (StarterSource("texts.csv", "answer"), "no column 'answer'; columns: nr, reply; name"),
        (
            StarterSource("array.json"),
            r"array\.json:1: text column 'text' is missing.*; name the column with the text by --text, and that with your own id by --id$",
        ),
        (StarterSource("texts.txt", "reply"), r"texts\.txt: there are no columns in it, .*; if it is a table, rename it so that it ends in \.csv"),
        (StarterSource("texts.txt", "text"), "there are no columns in it, so --text and --id name nothing"),
        (StarterSource("texts.txt", id="nr"), "there are no columns in it, so --text and --id name nothing"),
        (StarterSource("page.html", "reply"), r"page\.html: there are no columns in it, .*; leave them out$"),
        (StarterSource("broken.json"), r"broken\.json:1: broken JSON: [^;]*$"),
        (StarterSource("latin.csv", "reply"), r"invalid UTF-8.*; save the file in UTF-8 \(in Excel: save as 'CSV UTF-8'\)$"),
    ],
)
def test_texts_that_cannot_be_read_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: StarterSource, said: str
) -> None:
    (tmp_path / "texts.csv").write_text("nr,reply\n1,No.\n", encoding="utf-8")
    (tmp_path / "texts.txt").write_text("nr,reply\n1,No.\n", encoding="utf-8")
    (tmp_path / "page.html").write_text("<p>No.</p>", encoding="utf-8")
    (tmp_path / "array.json").write_text('[{"reply": "No."}]', encoding="utf-8")
    (tmp_path / "broken.json").write_text('{"text": No.}', encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes(b"nr,reply\n1,N\xe9.\n")
    given = {path.name for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=said):
        write_starter("mine", tmp_path, source)
    assert {path.name for path in tmp_path.iterdir()} == given


def test_a_json_array_of_texts_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.json").write_text('[{"text": "No."}, {"text": "Ask the lamp."}]', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert write_starter("civility", tmp_path, StarterSource("texts.json"))[0].is_file()


@pytest.mark.parametrize("written", ["['You ask \u2026', 'and another line']", '["No."]', "[\"You don't ask.\"\n 'I do.']", "[ 'a','b' ]"])
def test_lists_that_were_written_as_text_are_told_and_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    with (tmp_path / "lists.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("nr", "reply"), (1, "[sic] 'No.'"), (2, written), (3, "['a'] is a list.")])
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    assert write_starter("mine", tmp_path, StarterSource("lists.csv", "reply"), told=told.append)[0].is_file()
    (note,) = told
    assert note.startswith("1 of the first 3 texts looks like a list written as text, such as lists.csv:3: [") and "\n" not in note
    assert note.endswith("write one text a row (in pandas, before the file is written: frame.explode('reply'))")


def test_texts_that_are_no_lists_are_not_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.txt").write_text("[laughs] 'No.'\n\n'a', 'b'\n\n[1] See there.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    write_starter("mine", tmp_path, StarterSource("texts.txt"), told=told.append)
    assert not told


@pytest.mark.parametrize("name", ["mine", "civility", "answers"])
def test_with_the_embedded_model_in_every_role_nothing_else_is_named(tmp_path: Path, name: str) -> None:
    write_starter(name, tmp_path, embedded=True)
    config = load_config(tmp_path / f"{name}.yaml")
    assert {model.model for _, model in config.models if model} == {"embedded:smollm2-135m-instruct"} and config.verify.form == "contrast"


def test_a_domain_without_a_contrast_needs_a_judge(tmp_path: Path) -> None:
    text = "name: mine\ndescription: d\ncategories: {main: {definition: d, guideline: g, criteria: ['Is it good?']}}\n"
    (tmp_path / "mine-domain.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="verified by a judge, which the embedded model is not"):
        write_starter("mine", tmp_path, embedded=True)
