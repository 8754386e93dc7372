"""A tuned adapter or model in the form in which it is served: merged safetensors, the embedded engine's, GGUF."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

from safer_instruct.errors import ConfigError, ModelError
from safer_instruct.extras import require
from safer_instruct.models import store
from safer_instruct.models.adapterfiles import check_adapter
from safer_instruct.models.convert import convert
from safer_instruct.reverse import read_record
from safer_instruct.tuning.bases import Base, PretrainedCodec, open_base, quiet_about_renames
from safer_instruct.tuning.gguf_weights import GgufType, write_lora, write_model

Form = Literal["merged", "embedded", "gguf", "gguf-lora"]
ENGINE_TYPES = ("int8", "float32")  # the embedded engine's
_QUANTIZATIONS: dict[Form, tuple[str, ...]] = {"gguf": get_args(GgufType), "embedded": ENGINE_TYPES}


def export_model(adapter: Path, form: Form, out: Path, *, base: str | None = None, quantization: str | None = None) -> Path:
    """Write a tuned adapter, or a model tuned whole, in another form.

    Args:
        adapter: The folder that `tune` wrote, or any PEFT LoRA or transformers folder.
        form: `merged` safetensors with the tokenizer (vLLM, SGLang, transformers); `embedded` for this package's engine;
            `gguf` with everything merged, or `gguf-lora` for beside the base (llama.cpp, Ollama).
        out: A folder, for GGUF a file; nothing may be there.
        base: The base model, where the adapter's own record does not say or it has moved.
        quantization: For `gguf`: f32, f16 (default), bf16 or q8_0; for `embedded`: int8 (default) or float32.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` exists, `adapter` holds neither, or the form does not know the quantisation.
        ModelError: The base is not there, or of a kind that the form does not know.
        MissingExtraError: The extra `train` is not installed.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name a place with nothing in it (--out)")
    known = _QUANTIZATIONS.get(form, ())
    if quantization is not None and quantization not in known:
        remedy = f"write one of {', '.join(known)}" if known else f"'{form}' has none: leave --quantization out, or choose {_forms_with(quantization)}"
        raise ConfigError(f"'{form}' knows no quantisation '{quantization}'; {remedy}")
    lora = (adapter / "adapter_config.json").is_file()
    if not lora and not (adapter / "config.json").is_file():
        raise ConfigError(
            f"{adapter} holds no adapter and no model (adapter_config.json, config.json); give the folder that 'train' or 'tune' wrote, its 'out'; "
            "if its training was stopped, give that command again"
        )
    if lora:
        check_adapter(adapter)
    start = open_base(*_base_of(adapter, base)) if lora else open_base(str(adapter.resolve()), Path())
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "gguf-lora":
        if not lora:
            raise ConfigError(f"{adapter} is a whole model and no adapter; export it as 'gguf'")
        write_lora(adapter, start.load().config, out)
    elif form == "gguf":
        write_model(_merged(start, adapter, lora), start.tokenizer, out, begins=_begins(start), quantization=quantization or "f16", name=adapter.name)  # type: ignore[arg-type]
    elif form == "embedded" and start.embedded:
        out.mkdir()
        convert(store.gguf_path(start.embedded), out, adapter=adapter, quantization=quantization or "int8")
    elif form == "embedded":
        _write_engine(start, adapter, lora, out, quantization or "int8")
    else:
        _save(_merged(start, adapter, lora), start, out)
    return out


def checked_form(text: str) -> Form:
    """`text` as a form.

    Raises:
        ConfigError: It is none.
    """
    for form in get_args(Form):
        if form == text:
            return form  # type: ignore[no-any-return]
    raise ConfigError(f"'{text}' is no form to export; write one of {', '.join(get_args(Form))} (--to)")


def _forms_with(quantization: str) -> str:
    """The forms that know it, or else all that know any, as they are asked for."""
    forms = [form for form, known in _QUANTIZATIONS.items() if quantization in known]
    return " or ".join(f"--to {form}" for form in forms) or "; ".join(f"--to {form} ({', '.join(known)})" for form, known in _QUANTIZATIONS.items())


def _base_of(adapter: Path, given: str | None) -> tuple[str, Path]:
    """The base as the command line, the record of `tune`, or PEFT names it, and what the name is relative to."""
    if given:
        return given, Path()
    if said := read_record(adapter):
        return str(said["base"]), Path(said.get("base_folder") or ".")
    named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not named:
        raise ConfigError(f"{adapter} does not say which model it was tuned from; name it with --base")
    return str(named), Path()


def _begins(base: Base) -> bool:
    return isinstance(base.codec, PretrainedCodec) and base.codec.begins


@quiet_about_renames()
def _merged(base: Base, adapter: Path, lora: bool) -> Any:
    """The model with the adapter in its weights, in float32 on the CPU."""
    model = base.load("float32")
    if lora:
        peft = require("peft", extra="train", purpose="merging an adapter")
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval()


def _save(model: Any, base: Base, out: Path, dtype: str = "bfloat16") -> None:
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(out)
    base.tokenizer.save_pretrained(out)


def _write_engine(base: Base, adapter: Path, lora: bool, out: Path, quantization: str) -> None:
    """Through CTranslate2's own converter, which reads a folder.

    CTranslate2 4.8 leaves Gemma 2's soft caps out, and fails on texts longer than Gemma 3's sliding window.
    """
    ctranslate2 = require("ctranslate2", extra="local", purpose="the embedded engine")
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        model = _merged(base, adapter, lora)
        if model.config.model_type == "gemma2":
            raise ModelError("the embedded engine leaves out the soft caps of Gemma 2, so its log-probabilities would be wrong; export 'gguf' or 'merged'")
        window = model.config.sliding_window if model.config.model_type == "gemma3_text" else None
        _save(model, base, Path(folder), "float32")
        del model
        try:
            ctranslate2.converters.TransformersConverter(folder).convert(str(out), quantization=quantization)
        except (ValueError, NotImplementedError) as exc:
            raise ModelError(f"the embedded engine cannot run this model: {exc}") from exc
        shutil.copy(Path(folder) / "tokenizer.json", out)
    (out / "chat.jinja").write_text(base.tokenizer.chat_template or "", encoding="utf-8")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    special = {name: token for name, token in base.tokenizer.special_tokens_map.items() if isinstance(token, str)}
    config |= {"eos_token": base.codec.eos, "special_tokens": special, "begin_prompts": _begins(base), "window": window}
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
