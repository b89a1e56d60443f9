"""Run directories, atomic writing of their files, and checked reading of any file."""

from workbench.runs.atomic_writing import (
    finite,
    writable_directory,
    write_bytes,
    write_json,
    write_parquet,
    write_safetensors,
    write_text,
)
from workbench.runs.plain_yaml import parse_yaml, read_yaml
from workbench.runs.run_directory import RunDirectory
from workbench.runs.run_files import (
    read_run_file,
    read_table,
    read_timings,
    salvage_run_file,
    write_run_file,
    write_table,
)
from workbench.runs.safe_reading import (
    file_hash,
    read_bytes,
    read_json,
    read_parquet,
    read_safetensors,
    read_text,
    resolved,
)
from workbench.runs.strict_json import parse_json, parse_json_lines

__all__ = [
    "RunDirectory",
    "file_hash",
    "finite",
    "parse_json",
    "parse_json_lines",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_parquet",
    "read_run_file",
    "read_safetensors",
    "read_table",
    "read_text",
    "read_timings",
    "read_yaml",
    "resolved",
    "salvage_run_file",
    "writable_directory",
    "write_bytes",
    "write_json",
    "write_parquet",
    "write_run_file",
    "write_safetensors",
    "write_table",
    "write_text",
]
