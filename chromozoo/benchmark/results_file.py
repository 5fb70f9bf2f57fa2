"""Result files: CSV files that several processes can add rows to."""

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from chromozoo.errors import ChromozooError

Row = dict[str, str]


class ResultsError(ChromozooError, ValueError):
    """A result row or file is invalid; the message names the file."""


@dataclass(frozen=True)
class ResultsFile:
    """CSV file with one row for each measurement.

    Attributes:
        path: File, which need not exist.
        columns: All columns of a row, in the order of the file.
        key: Columns that identify a measurement. A second row of the same key replaces the first.
        command: Kind of the rows, for error messages.
    """

    path: Path
    columns: tuple[str, ...]
    key: tuple[str, ...]
    command: str

    def read(self) -> list[Row]:
        """Read the rows as text; missing values are ``''``, and a missing file has no rows.

        Raises:
            ResultsError: Unknown or repeated columns, or a row of another length.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            unknown = sorted(set(header) - set(self.columns))
            if not header or unknown or len(set(header)) < len(header):
                raise ResultsError(
                    f"{self.path}: its columns are not those of {self.command} rows "
                    f"(unknown columns: {', '.join(unknown) or 'none'}); name another file "
                    "with --output, or restore it from git"
                )
            rows = []
            for values in reader:
                if None in values or None in values.values():
                    raise ResultsError(
                        f"{self.path}: line {reader.line_num} does not have {len(header)} values; "
                        "restore the file from git"
                    )
                rows.append(dict.fromkeys(self.columns, "") | values)
        return rows

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; a row whose key is in the file already replaces the old row.

        The file is replaced as a whole under a lock (``.<name>.lock`` in its folder): no reader
        sees half a file, and processes that add at the same time lose no rows.

        Args:
            rows: Values by column. Missing ones, None and NaN are written as ``''``.

        Raises:
            ResultsError: As :meth:`read`; the file is left as it is.
            ValueError: A row has an unknown column.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            kept = {self._key(row): row for row in self.read()}
            for row in rows:
                text = dict.fromkeys(self.columns, "")
                text |= {column: as_text(value) for column, value in row.items()}
                kept[self._key(text)] = text
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(kept.values())
            os.replace(temporary, self.path)

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in self.key)


def interval_columns(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of metrics with intervals: ``fka``, ``fka_low``, ``fka_high``, ..."""
    return tuple(f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high"))


def as_text(value: Any) -> str:
    """Return a value as text for a result file; None and NaN give ``''``."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
