"""Run directories, and files that are whole or absent: atomic writing, checked reading."""

from workbench.runs.directory import Manifest, RunDirectory, Stage
from workbench.runs.plain_yaml import parse_yaml, read_yaml
from workbench.runs.reading import file_hash, read_bytes, read_json, read_parquet, read_safetensors, read_text
from workbench.runs.writing import finite, write_bytes, write_json, write_parquet, write_safetensors, write_text

__all__ = [
    "Manifest",
    "RunDirectory",
    "Stage",
    "file_hash",
    "finite",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_parquet",
    "read_safetensors",
    "read_text",
    "read_yaml",
    "write_bytes",
    "write_json",
    "write_parquet",
    "write_safetensors",
    "write_text",
]
