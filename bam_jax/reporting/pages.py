"""Renders the report as Markdown, HTML and LaTeX."""

from collections.abc import Sequence

import markupsafe

from bam_jax import config as config_lib
from bam_jax.reporting import error_pages
from bam_jax.reporting import figures
from bam_jax.reporting import table_formats
from bam_jax.reporting import tables
from bam_jax.reporting import words

_LATEX_HEAD = r"""% Written by BAM-JAX. In a paper: \usepackage{booktabs}, then
% \input{report}; what is not wanted can be cut out.
"""


def render(
  name: str,
  report: tables.Report,
  plots: Sequence[tuple[figures.Plot, markupsafe.Markup]] = (),
  errors: error_pages.Section | None = None,
) -> str:
  """Renders report.md or report.html from the template `name`.j2.

  `name` is the name of the file. Plots and the error analysis are for
  report.html only.
  """
  is_html = name.endswith('.html')
  template = words.template(name, autoescape=is_html)
  variants = report.summary['variants']
  sizes = {
    'variant': len(variants),
    'task': len(report.tasks),
    'seed': len(config_lib.seeds_of_shard(report.config)),
  }
  return template.render(
    write=table_formats.to_html if is_html else table_formats.to_markdown,
    title=report.config.name,
    size=' · '.join(
      f'{number} {noun}{"" if number == 1 else "s"}'
      for noun, number in sizes.items()
    ),
    headline=words.headline(report.summary),
    verdicts=tables.verdict_table(report),
    main=tables.main_table(report),
    remarks=[
      *(f'Warning: {warning}.' for warning in report.summary['warnings']),
      *words.remarks(report.summary, report.config, report.tasks),
    ],
    plots=plots,
    errors=errors,
    tables=tables.further_tables(report),
    about=report.summary['notes'],
    changed=words.changed(report.config),
  )


def latex(report: tables.Report) -> str:
  """Returns report.tex: the main table, and tables of custom variants."""
  notes = report.summary['notes']
  averages = words.averages(report.tasks)
  left_out = tuple(f'Average ({name})' for name in averages[1:])
  remarks = [
    text
    for text in words.remarks(report.summary, report.config, report.tasks)
    if not text.startswith(left_out)
  ]
  remarks += [
    f'{name.capitalize()}: {notes[name]}'
    for name in ('note', 'pretrained weights', 'trained on')
    if name in notes
  ]
  caption = ' '.join(
    text if text.endswith('.') else f'{text}.' for text in remarks
  )
  parts = [
    _LATEX_HEAD,
    table_formats.to_latex(tables.main_table(report), caption),
  ]
  parts += [
    table_formats.to_latex(table, f'{table.title}. {table.note}')
    for table in tables.further_tables(report)
    if table.latex_columns
  ]
  return '\n'.join(parts)
