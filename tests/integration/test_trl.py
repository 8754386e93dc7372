"""What a run writes is what TRL reads: the pairs load as they are, and DPO trains on them."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from safer_instruct import tables
from safer_instruct.config import load_config
from safer_instruct.example import Example, Turn
from safer_instruct.export import export_pairs
from safer_instruct.pipeline import run

torch = pytest.importorskip("torch", reason="training needs torch; install the extra 'train'")
trl = pytest.importorskip("trl", reason="the consumer under test is TRL; install the group 'dev'")
datasets = pytest.importorskip("datasets", reason="TRL needs datasets")
transformers = pytest.importorskip("transformers", reason="TRL needs transformers; install the extra 'train'")

CHAT = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
ROWS = 12


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Any:
    """Nothing in here may need a hub."""
    patch = pytest.MonkeyPatch()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.setenv(name, "1")
    patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    rng = random.Random(1)
    words = ["umbrella", "kettle", "parcel", "lamp", "cake", "broke", "bent", "melted", "late", "lost", "never", "again", "\N{SNOWMAN}", "na\u00efve", '"so"']
    texts = [" ".join(rng.choices(words, k=15)) + f" {i}" for i in range(ROWS)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": dict.fromkeys(("inducer", "expert", "scorer"), "scripted:"),
        "filter": {"prompt": {"language": None}, "consistency": None},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = run(load_config(folder / "config.yaml"), folder / "out")
    assert result.summary["pairs"] == ROWS
    return result.path


@pytest.fixture(scope="module")
def tokenizer(finished: Path) -> Any:
    """Words of the pairs, trained here."""
    import tokenizers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False)
    bpe.train_from_iterator((finished / "pairs.jsonl").read_text(encoding="utf-8").splitlines(), trainer)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = CHAT
    return made


def load(path: Path) -> Any:
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


def train_one_step(dataset: Any, tokenizer: Any, folder: Path, method: str = "DPO") -> tuple[float, int]:
    """Loss of one step on a tiny random Llama, and how many weight tensors it changed."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape, **ids)
    model = transformers.LlamaForCausalLM(config)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    arguments = getattr(trl, f"{method}Config")(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    trainer = getattr(trl, f"{method}Trainer")(model=model, ref_model=copy.deepcopy(model), args=arguments, train_dataset=dataset, processing_class=tokenizer)
    loss = trainer.train().training_loss
    changed = sum(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())
    return loss, changed


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_pairs_load_and_train_as_they_are(finished: Path, tokenizer: Any, tmp_path: Path, name: str) -> None:
    dataset = load(finished / name)
    assert dataset.column_names == ["prompt", "chosen", "rejected", "category", "id"]
    assert {str(feature.dtype) for feature in dataset.features.values()} == {"string"}
    assert dataset.to_list() == pq.read_table(finished / "pairs.parquet").to_pylist()
    loss, changed = train_one_step(dataset, tokenizer, tmp_path)
    assert math.isfinite(loss) and loss == pytest.approx(math.log(2), abs=1e-3)  # -log sigmoid(0): policy and reference begin as one
    assert changed > 0


def test_the_run_directory_loads_by_its_card(finished: Path, tmp_path: Path) -> None:
    """The card's header tells `datasets` which of the files the dataset is."""
    dataset = datasets.load_dataset(str(finished), split="train", cache_dir=str(tmp_path))
    assert len(dataset) == ROWS and dataset.column_names == ["prompt", "chosen", "rejected", "category", "id"]


def test_messages_load_and_train_as_they_are(finished: Path, tokenizer: Any, tmp_path: Path) -> None:
    path, count, *_ = export_pairs(finished, "messages", tmp_path / "messages.jsonl")
    dataset = load(path)
    assert len(dataset) == count == ROWS
    assert trl.is_conversational(dataset[0])
    first = pq.read_table(finished / "pairs.parquet").to_pylist()[0]
    assert (dataset[0]["prompt"], dataset[0]["rejected"]) == (
        [{"role": "user", "content": first["prompt"]}],
        [{"role": "assistant", "content": first["rejected"]}],
    )
    loss, changed = train_one_step(dataset, tokenizer, tmp_path / "out")
    assert math.isfinite(loss) and loss == pytest.approx(math.log(2), abs=1e-3)
    assert changed > 0


@pytest.mark.parametrize("name", ["kto", "kto-messages"])
def test_unpaired_rows_load_and_train_as_they_are(finished: Path, tokenizer: Any, tmp_path: Path, name: str) -> None:
    dataset = load(export_pairs(finished, name, tmp_path / f"{name}.jsonl").path)
    assert len(dataset) == 2 * ROWS and dataset.features["label"].dtype == "bool"
    loss, changed = train_one_step(dataset, tokenizer, tmp_path / "out", "KTO")
    assert loss == pytest.approx(0.5, abs=1e-2) and changed > 0  # 1 - sigmoid(0), weights one on both sides


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_pairs_whose_prompts_are_conversations_load_and_train_as_they_are(tokenizer: Any, tmp_path: Path, name: str) -> None:
    said = (Turn("user", "kettle broke again"), Turn("assistant", "never late"))
    with tables.outputs(tmp_path, conversations=True) as out:
        for number in range(4):
            history = said if number else ()
            out.add(Example(f"x{number}", "parcel lost", "support", "t.jsonl", number, prompt="lamp bent?", chosen="cake melted", history=history))
    dataset = load(tmp_path / name)
    assert [len(row["prompt"]) for row in dataset] == [1, 3, 3, 3] and trl.is_conversational(dataset[0])
    loss, changed = train_one_step(dataset, tokenizer, tmp_path / "out")
    assert math.isfinite(loss) and loss == pytest.approx(math.log(2), abs=1e-3) and changed > 0
