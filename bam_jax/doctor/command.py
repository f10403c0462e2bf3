"""The command that checks raw data: a table, doctor.json and doctor.md."""

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path

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

# Shown of a finding; doctor.json has more.
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
  'split',
  'rows',
  'labels',
  'characters',
  'tokens',
  'rows cut',
  'tokens cut',
)
_IN_ONE_LINE = frozenset({'severity', 'split', 'check', 'count', 'rows'})
_NUMBERS = frozenset(
  {'count', 'rows', 'characters', 'tokens', 'rows cut', 'tokens cut'}
)


def run(config: config_lib.Config, workdir: Path) -> int:
  """Checks the raw data of all tasks of a configuration.

  Needs no pretrained weights: without a tokenizer, tokens are not counted.

  Returns:
    The command's exit status, as `findings.exit_code`.

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
  console.print(_finding_table(report))
  console.print(_split_table(report))
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


def _verdict(report: examine.Report) -> str:
  counts = collections.Counter(f.severity for f in report.findings)
  return ', '.join(f'{s}s: {counts[s]}' for s in findings.SEVERITIES) + '.'


def _finding_rows(
  report: examine.Report, between: str = ', '
) -> Iterator[list[str]]:
  """A row a finding, its places with `between` between them."""
  for found in report.findings:
    shown = found.places[:_PLACES]
    if len(shown) < len(found.places):
      shown = (*shown, '...')
    yield [
      found.severity,
      f'{found.task}/{found.split}',
      found.check,
      f'{found.count:,}',
      '; '.join(part for part in (found.what, found.remedy) if part),
      between.join(shown),
    ]


def _split_rows(report: examine.Report) -> Iterator[list[str]]:
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


def _finding_table(report: examine.Report) -> rich.table.Table:
  """For the terminal: places below words, so that both find room."""
  table = _table(_FINDINGS[:-1])
  for *names, count, what, places in _finding_rows(report, '\n'):
    parts = [what, *places.split('\n')] if places else [what]
    cell = '\n'.join(map(escape.plain, parts))
    # What is in brackets is no markup.
    cells = [rich.text.Text(text) for text in (*names, count, cell)]
    table.add_row(*cells, style=_STYLES.get(names[0], ''))
  return table


def _split_table(report: examine.Report) -> rich.table.Table:
  """For the terminal: all but the labels."""
  name, rows, _, *measured = _SPLITS
  table = _table((name, rows, *measured))
  for name, rows, _, *measured in _split_rows(report):
    table.add_row(*map(rich.text.Text, (name, rows, *measured)))
  return table


def _table(header: Sequence[str]) -> rich.table.Table:
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  for name in header:
    table.add_column(
      name,
      justify='right' if name in _NUMBERS else 'left',
      no_wrap=name in _IN_ONE_LINE,
      overflow='fold',
    )
  return table


def _markdown(report: examine.Report, remark: str) -> str:
  lines = ['# The raw data', '', _verdict(report)]
  for title, header, rows in (
    ('Findings', _FINDINGS, _finding_rows(report)),
    ('Splits', _SPLITS, _split_rows(report)),
  ):
    marks = ['--:' if name in _NUMBERS else '---' for name in header]
    lines += ['', f'## {title}', '']
    cells = [map(escape.markdown, row) for row in rows]
    for row in (header, marks, *cells):
      lines.append(f'| {" | ".join(row)} |')
  lines += [
    '',
    'Lengths are median, 90th and 99th percentile, longest.'
    f' {escape.markdown(remark)}',
  ]
  return '\n'.join(lines) + '\n'


def _json(
  config: config_lib.Config, report: examine.Report, remark: str
) -> dict[str, object]:
  return {
    'exit_code': findings.exit_code(report.findings),
    'data': dataclasses.asdict(config.data),
    'tokens': remark,
    'findings': [dataclasses.asdict(found) for found in report.findings],
    'splits': [dataclasses.asdict(split) for split in report.splits],
  }
