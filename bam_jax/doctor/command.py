"""The command that checks raw data: a table, doctor.json and doctor.md."""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import escape
from bam_jax import files
from bam_jax.data import features
from bam_jax.data import registry
from bam_jax.doctor import examine
from bam_jax.doctor import findings
from bam_jax.doctor import lengths
from bam_jax.training import setup

# Places shown of a finding; doctor.json has more.
_PLACES = 3
_STYLES = {'error': 'bold red', 'warning': 'yellow'}
_FINDINGS = (
  'severity',
  'split',
  'check',
  'count',
  'what, how to mend',
  'where',
)
_SPLITS = (
  'split', 'rows', 'labels', 'characters', 'tokens', 'rows cut', 'tokens cut',
)  # fmt: skip
_IN_ONE_LINE = {'severity', 'split', 'check', 'count', 'rows'}
_NUMBERS = {'count', 'rows', 'characters', 'tokens', 'rows cut', 'tokens cut'}


def run(config: config_lib.Config, workdir: Path) -> int:
  """Checks the raw data of all tasks of a configuration.

  Needs no pretrained weights: without a tokenizer, tokens are not counted.

  Returns:
    The command's exit status, see `findings.exit_code`.

  Raises:
    errors.UserError: the tasks do not hold together, or the files can't be
      written.
  """
  tasks = registry.resolve(config)
  tokenizer, remark = _tokenizer(config)
  report = examine.examine(tasks, config.data, tokenizer)
  files.write_json(workdir / 'doctor.json', _json(config, report, remark))
  files.write_text(workdir / 'doctor.md', _markdown(report, remark))
  console = rich.console.Console()
  # In the terminal, places stand below the words, so that both find room.
  console.print(
    _table(
      _FINDINGS[:-1],
      (
        [*cells, '\n'.join(map(escape.plain, [what, *places]))]
        for *cells, what, places in _finding_rows(report)
      ),
    )
  )
  console.print(
    _table(
      [name for name in _SPLITS if name != 'labels'],
      ([*cells[:2], *cells[3:]] for cells in _split_rows(report)),
    )
  )
  # A path is copied better in one piece.
  console.print(
    f'{_verdict(report)} {workdir / "doctor.md"} has all of it.',
    markup=False,
    soft_wrap=True,
  )
  return findings.exit_code(report.findings)


def _tokenizer(
  config: config_lib.Config,
) -> tuple[features.Tokenizer | None, str]:
  """The tokenizer of the configuration, and a remark on the tokens."""
  try:
    tokenizer = setup.load_tokenizer(config)
  except errors.UserError as error:
    logging.warning('%s', error)
    return None, f'Tokens are not counted: {error}.'
  return tokenizer, (
    f'Tokens are those of up to {lengths.SAMPLE:,} rows a split, evenly spread,'
    f' special ones included; rows are cut at {config.data.max_length}.'
  )


def _verdict(report: findings.Report) -> str:
  counts = collections.Counter(f.severity for f in report.findings)
  return ', '.join(f'{s}s: {counts[s]}' for s in findings.SEVERITIES) + '.'


def _finding_rows(report: findings.Report) -> Iterator[list[Any]]:
  """A row per finding, in the columns `_FINDINGS`; its places as a list."""
  for found in report.findings:
    more = ['...'] if len(found.places) > _PLACES else []
    yield [
      found.severity,
      f'{found.task}/{found.split}',
      found.check,
      f'{found.count:,}',
      '; '.join(part for part in (found.what, found.remedy) if part),
      [*found.places[:_PLACES], *more],
    ]


def _split_rows(report: findings.Report) -> Iterator[list[str]]:
  """A row per split, in the columns `_SPLITS`."""
  for split in report.splits:
    measured = split.lengths
    labels = [f'{name} {share:.1%}' for name, share in split.shares.items()]
    yield [
      f'{split.task}/{split.split}',
      f'{split.rows:,}',
      errors.some(labels),
      ' '.join(map(str, measured.characters)),
      ' '.join(map(str, measured.tokens)),
      f'{measured.rows_cut:.2%}' if measured.tokens else '',
      f'{measured.tokens_cut:.2%}' if measured.tokens else '',
    ]


def _table(
  header: Sequence[str], rows: Iterable[Sequence[str]]
) -> rich.table.Table:
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  for name in header:
    table.add_column(
      name,
      justify='right' if name in _NUMBERS else 'left',
      no_wrap=name in _IN_ONE_LINE,
      overflow='fold',
    )
  for row in rows:
    # As `Text`, brackets are no markup.
    table.add_row(*map(rich.text.Text, row), style=_STYLES.get(row[0], ''))
  return table


def _markdown(report: findings.Report, remark: str) -> str:
  lines = ['# The raw data', '', _verdict(report)]
  found = [
    [*cells, ', '.join(places)] for *cells, places in _finding_rows(report)
  ]
  for title, header, rows in (
    ('Findings', _FINDINGS, found),
    ('Splits', _SPLITS, _split_rows(report)),
  ):
    marks = ['--:' if name in _NUMBERS else '---' for name in header]
    lines += ['', f'## {title}', '']
    cells = [map(escape.markdown, row) for row in rows]
    lines += [f'| {" | ".join(row)} |' for row in (header, marks, *cells)]
  lines += [
    '',
    'Lengths are median, 90th and 99th percentile, longest.'
    f' {escape.markdown(remark)}',
  ]
  return '\n'.join(lines) + '\n'


def _json(
  config: config_lib.Config, report: findings.Report, remark: str
) -> dict[str, object]:
  return {
    'exit_code': findings.exit_code(report.findings),
    'data': dataclasses.asdict(config.data),
    'tokens': remark,
    'findings': [dataclasses.asdict(found) for found in report.findings],
    'splits': [dataclasses.asdict(split) for split in report.splits],
  }
