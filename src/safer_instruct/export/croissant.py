"""Croissant: what the files of a dataset are and hold, for machines (https://docs.mlcommons.org/croissant/docs/croissant-spec.html)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safer_instruct.export.rows import Finished, Kind
from safer_instruct.export.tables import as_written

_TYPES: dict[Kind, str] = {"text": "sc:Text", "integer": "sc:Integer", "real": "sc:Float"}
_TERMS = ("citeAs", "column", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5")
_MORE_TERMS = ("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "separator", "source", "subField", "transform")
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in (*_TERMS, *_MORE_TERMS)},
}


def write_croissant(finished: Finished, folder: Path, files: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Write `croissant.json` beside the Parquet `files`, given by split and relative to the folder, and so their SHA-256."""
    summary = finished.described()
    metadata = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": summary["domain"]["name"],
        "description": f"{summary['domain']['description']} {summary['domain']['misuse']}",
        "license": summary["license"] or "not decided",
        "version": "1.0.0",
        "datePublished": finished.finished_on,
        "keywords": ["preference data", "DPO", "safer-instruct"],
        "distribution": [_file_object(folder, file, digests[split]) for split, file in files.items()],
        "recordSet": [_record_set(split, file, as_written(finished.columns)) for split, file in files.items()],
    }
    (folder / "croissant.json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _file_object(folder: Path, file: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file,
        "name": file,
        "contentUrl": file,
        "contentSize": f"{(folder / file).stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": digest,
    }


def _record_set(split: str, file: str, columns: Mapping[str, Kind]) -> dict[str, Any]:
    fields = [_field(f"{split}/{name}", name, kind, file) for name, kind in columns.items()]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "key": {"@id": f"{split}/id"}, "field": fields}


def _field(id_: str, column: str, kind: Kind, file: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": {"column": column}}
    named = {"@type": "cr:Field", "@id": id_, "name": column}
    if kind != "messages":
        return {**named, "dataType": _TYPES[kind], "source": source}
    parts = [
        {
            "@type": "cr:Field",
            "@id": f"{id_}/{part}",
            "name": part,
            "dataType": "sc:Text",
            "source": {**source, "transform": {"jsonPath": part}},
        }
        for part in ("role", "content")
    ]
    return {**named, "repeated": True, "subField": parts}
