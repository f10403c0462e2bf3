"""The report as Markdown and as one self-contained HTML page."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import jinja2
import markupsafe

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import figures
from bam_jax.reporting import listings
from bam_jax.reporting import panels
from bam_jax.reporting import tables
from bam_jax.tasks import task as task_lib


def markdown(
  summary: Mapping[str, dict],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> str:
  """The tables and what must be said with them.

  Args:
    summary: what report.json holds.
    config: what was run.
    tasks: the tasks of the plan.
  """
  variants = summary['variants']
  main = tables.table(variants, tasks, summary['comparisons'])
  lines = [
    f'# {escape.markdown(config.name)}',
    '',
    escape.markdown(tables.headline(variants)),
    '',
  ]
  lines += _markdown_table(
    ['variant', *(f'{name} ({what})' for name, what in main.header)],
    [
      [escape.markdown(figures.label(name)), *map(_main_cell, cells)]
      for name, cells in main.rows
    ],
  )
  lines += [
    '',
    *_bullets(
      tables.remarks(
        variants, config, tasks, summary['comparisons'], summary['undefined']
      )
    ),
  ]
  lines += ['', '## Every metric', '']
  lines += _markdown_table(
    ['task', 'metric', *(figures.label(name) for name in variants)],
    [
      map(escape.markdown, [task, metric, *cells])
      for task, metric, cells in tables.all_metrics(variants, tasks)
    ],
  )
  for listing in listings.everything(summary, tasks):
    lines += ['', f'## {escape.markdown(listing.title)}', '']
    lines += _markdown_table(
      listing.header,
      [map(escape.markdown, row) for row in listing.rows],
      listing.words,
    )
    lines += ['', escape.paragraph(listing.note)]
  lines += ['', '## What it was run with', '']
  lines += _bullets(f'{k}: {v}' for k, v in summary['notes'].items())
  lines += ['', '## Configuration, where it is not the default', '']
  lines += _bullets(f'{k}: {v}' for k, v in tables.changed(config).items())
  return '\n'.join(lines) + '\n'


def _main_cell(cell: tables.Cell) -> str:
  text = escape.markdown(cell.number + cell.stars)
  return f'**{text}**' if cell.is_best else text


def html_page(
  summary: Mapping[str, dict],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  curves: curves_lib.Curves,
) -> str:
  """One file that needs no other: tables, pictures, notes.

  Args:
    summary: what report.json holds.
    config: what was run.
    tasks: the tasks of the plan.
    curves: what the runs logged.
  """
  variants = summary['variants']
  looks = figures.looks(list(variants))
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template('report.html.j2').render(
    title=config.name,
    size=' · '.join(
      _count(number, noun)
      for number, noun in (
        (len(variants), 'variant'),
        (len(tasks), 'task'),
        (len(config_lib.seeds_of_shard(config)), 'seed'),
      )
    ),
    several_seeds=len(config_lib.seeds_of_shard(config)) > 1,
    labels={v: figures.label(v) for v in variants},
    headline=tables.headline(variants),
    table=tables.table(variants, tasks, summary['comparisons']),
    num_tasks=len(tasks),
    remarks=tables.remarks(
      variants, config, tasks, summary['comparisons'], summary['undefined']
    ),
    listings=listings.everything(summary, tasks),
    all_metrics=tables.all_metrics(variants, tasks),
    about=summary['notes'],
    changed=tables.changed(config),
    swatches={
      variant: markupsafe.Markup(figures.swatch(look))
      for variant, look in looks.items()
    },
    steps=curves.steps(),
    score_panels=panels.score_panels(summary, tasks, looks),
    loss_panels=panels.loss_panels(curves, tasks, looks),
    weight_panels=panels.weight_panels(curves, looks),
    effect_panels=panels.effect_panels(summary, looks),
    share_panels=panels.share_panels(summary, looks),
  )


def _count(number: int, noun: str) -> str:
  return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _markdown_table(
  header: Sequence[str], rows: Iterable[Iterable[str]], words: int = 1
) -> list[str]:
  """The lines of a table; all but the first `words` columns to the right.

  The cells are escaped already, the header is not.
  """
  marks = ['---'] * words + ['--:'] * (len(header) - words)
  lines = [map(escape.markdown, header), marks, *rows]
  return [f'| {" | ".join(row)} |' for row in lines]


def _bullets(items: Iterable[str]) -> list[str]:
  return [f'- {escape.paragraph(item)}' for item in items]
