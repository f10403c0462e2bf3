"""The command `doctor`: checks raw data and writes a report."""

import collections
from collections.abc import Iterable, Iterator, Sequence
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
from bam_jax.data import labels
from bam_jax.data import registry
from bam_jax.doctor import examine
from bam_jax.doctor import findings
from bam_jax.doctor import lengths
from bam_jax.doctor import rows as rows_lib
from bam_jax.experiments import divisions
from bam_jax.experiments import workspace
from bam_jax.modeling import pretrained
from bam_jax.tasks import windows

# Most places that are shown per finding; doctor.json has more.
_PLACES = 3
_STYLES = {'error': 'bold red', 'warning': 'yellow'}
_FINDINGS = (
  'severity', 'split', 'check', 'count', 'what, how to fix', 'where'
)  # fmt: skip
_SPLITS = (
  'split', 'rows', 'characters', 'tokens', 'rows cut', 'tokens cut', '[UNK]'
)  # fmt: skip
_CHOICES = (
  'split', 'limit', 'rows cut', 'tokens cut', 'windows: rows cut',
  'tokens cut', 'inputs',
)  # fmt: skip
_ADVICE = (
  'Fix errors before a run. Check warnings: they may make scores misleading.'
  ' Notes need no change.'
)
_LENGTHS = 'Lengths are median, 90th and 99th percentile, longest'
# Width of the widest table that is printed, in characters.
_WIDEST = 1000
_NUMBERS = ({'count'} | {*_SPLITS} | {*_CHOICES}) - {'split'}


def run(config: config_lib.Config, workdir: Path) -> int:
  """Checks the raw data of all tasks of a configuration.

  Pretrained weights are not needed. If the tokenizer is missing, tokens are not
  counted.

  Returns:
    The command's exit status, see `findings.exit_code`. A missing tokenizer
    counts as a warning.

  Raises:
    errors.UserError: a task is not declared correctly, the labels of a task are
      neither given nor in training rows, the encoder has too few positions,
      windows would skip text, or doctor.json or doctor.md can't be written.
  """
  tasks = registry.resolve(config)
  space = workspace.Workspace(workdir)
  learnt = space.learnt_tasks()
  found = labels.find(tasks, config.data, workdir, learnt, is_strict=False)
  tasks = labels.add(tasks, found, workdir)
  errors.raise_first(registry.threshold_mistakes(config, tasks))
  records = {name: space.division(name) for name in learnt}
  tasks = divisions.add(tasks, divisions.recorded(tasks, records))
  try:
    tokenizer = pretrained.load_tokenizer(config)
    remark = (
      f'Tokens, special ones included, are counted on up to'
      f' {lengths.SAMPLE:,} rows of each split, evenly spread; the limit is'
      f' {config.data.max_length} tokens.'
    )
  except errors.UserError as error:
    logging.warning('%s', error)
    tokenizer, remark = None, f'Tokens are not counted: {error}.'
  else:
    pretrained.check_max_length(config)
    for task in tasks.tasks:
      windows.check_stride(
        task, tokenizer.num_separators, config.data.max_length
      )
  report = examine.examine(
    tasks, config.data, tokenizer, _vocabulary_remedy(config.model)
  )
  counts = collections.Counter(f.severity for f in report.findings)
  exit_code = findings.exit_code(report.findings)
  if tokenizer is None:
    counts['warning'] += 1
    exit_code = exit_code or findings.EXIT_CODES['warning']
  verdict = ', '.join(f'{s}s: {counts[s]}' for s in findings.EXIT_CODES) + '.'
  data = dataclasses.asdict(config.data)
  content = {'exit_code': exit_code, 'data': data, 'tokens': remark}
  files.write_json(
    workdir / 'doctor.json', content | dataclasses.asdict(report)
  )
  files.write_text(workdir / 'doctor.md', _markdown(report, verdict, remark))
  # Lines are not broken at the terminal's width: unbroken lines are easier to
  # read and to copy.
  console = rich.console.Console(width=_WIDEST)
  for severity, split, check, count, what, where in _finding_rows(report):
    line = f'{severity}: {split}: {check} ({count}): {what}'
    if where:
      line += f' ({where})'
    text = rich.text.Text(line, _STYLES.get(severity, ''))
    console.print(text, soft_wrap=True)
  for header, rows in (
    (_SPLITS, list(_split_rows(report))),
    (_CHOICES, list(_choice_rows(report))),
  ):
    if rows:
      console.print(_table(header, rows))
  console.print(
    f'{_LENGTHS}. {verdict} {workdir / "doctor.md"} contains the full report.',
    markup=False,
    soft_wrap=True,
  )
  return exit_code


def _vocabulary_remedy(model: config_lib.ModelConfig) -> str:
  """Returns the advice to give if the vocabulary lacks many of the words."""
  if model.init:
    return rows_lib.CASED
  if model.vocab:
    return (
      'set config.model.vocab to a vocabulary of these texts, or'
      ' config.model.init to a pretrained encoder'
    )
  return (
    'these are the few words of the demo tasks; set config.model.init to a'
    ' pretrained encoder, or config.model.vocab to a vocab.txt'
  )


def _finding_rows(report: findings.Report) -> Iterator[list[str]]:
  """Yields a table row per finding, with the columns `_FINDINGS`."""
  for found in report.findings:
    what = '; '.join(part for part in (found.what, found.remedy) if part)
    where = [*found.places[:_PLACES], '...'][: len(found.places)]
    yield [
      found.severity,
      f'{found.task}/{found.split}',
      found.check,
      f'{found.count:,}',
      escape.plain(what),
      ', '.join(map(escape.plain, where)),
    ]


def _split_rows(report: findings.Report) -> Iterator[list[str]]:
  """Yields a table row per split: number of rows, lengths, truncation."""
  for split in report.splits:
    measured = split.lengths
    yield [
      f'{split.task}/{split.split}',
      f'{split.rows:,}',
      ' '.join(map(str, measured.characters)),
      ' '.join(map(str, measured.tokens)),
      f'{measured.rows_cut:.2%}' if measured.tokens else '',
      f'{measured.tokens_cut:.2%}' if measured.tokens else '',
      f'{measured.unknown:.2%}' if measured.tokens else '',
    ]


def _choice_rows(report: findings.Report) -> Iterator[list[str]]:
  """Yields a table row per token limit, for each split with long rows."""
  for split in report.splits:
    for limit, (cut, in_windows) in split.lengths.choices.items():
      yield [
        f'{split.task}/{split.split}',
        f'{limit}',
        f'{cut.rows_cut:.2%}',
        f'{cut.tokens_cut:.2%}',
        f'{in_windows.rows_cut:.2%}',
        f'{in_windows.tokens_cut:.2%}',
        f'{in_windows.inputs:.2f}',
      ]


def _table(
  header: Sequence[str], rows: Iterable[Sequence[str]]
) -> rich.table.Table:
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  for name in header:
    table.add_column(
      name, justify='right' if name in _NUMBERS else 'left', no_wrap=True
    )
  for row in rows:
    # In a `Text`, brackets are not read as markup.
    table.add_row(*map(rich.text.Text, row))
  return table


def _markdown(report: findings.Report, verdict: str, remark: str) -> str:
  lines = ['# The raw data', '', f'{verdict} {_ADVICE}']
  splits = []
  for split, (name, count, *cells) in zip(report.splits, _split_rows(report)):
    labels = [f"'{label}' {share:.1%}" for label, share in split.shares.items()]
    splits.append([name, count, errors.some(labels), *cells])
  for title, header, rows in (
    ('Findings', _FINDINGS, list(_finding_rows(report))),
    ('Splits', (*_SPLITS[:2], 'labels', *_SPLITS[2:]), splits),
    ('Long texts', _CHOICES, list(_choice_rows(report))),
  ):
    if title == 'Long texts' and not rows:
      continue
    marks = ['--:' if name in _NUMBERS else '---' for name in header]
    lines += ['', f'## {title}', '']
    cells = [map(escape.markdown, row) for row in rows]
    lines += [f'| {" | ".join(row)} |' for row in (header, marks, *cells)]
    if title == 'Long texts':
      lines += [
        '',
        'What a limit of tokens loses where texts are cut there, and where they'
        ' are read in windows of that length; inputs are those for each row.',
      ]
  lines += [
    '',
    f'{_LENGTHS}; [UNK] is the share of tokens that the vocabulary does not'
    f' have. {escape.markdown(remark)}',
  ]
  return '\n'.join(lines) + '\n'
