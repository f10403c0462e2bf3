"""The command `report`: writes a report on all finished runs."""

from collections.abc import Mapping
import logging

from bam_jax import errors
from bam_jax import escape
from bam_jax.experiments import baselines
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.experiments import weak_models
from bam_jax.inference import decisions
from bam_jax.reporting import scores as scores_lib
from bam_jax.runtime import phases
from bam_jax.runtime import processes


@phases.phase(phases.REPORT)
@processes.runs_on_first
def report(plan: plan_lib.Plan) -> None:
  """Writes the report on all finished runs of a plan.

  Raises:
    errors.UserError: no run is finished, or one was trained with other
      settings.
  """
  finished = [
    (run, record)
    for run in plan.runs
    if (record := plan.read_record(run)) is not None
    and run.variant in plan.config.variants
    and not run.fold
  ]
  if not finished:
    raise errors.UserError(
      f'{plan.workspace.root}: no finished run to report on; run'
      ' --mode=run first'
    )
  scores = [
    scores_lib.RunScores(
      variant=run.variant,
      seed=run.seed,
      task=task,
      scores=splits,
      undefined=record.get('undefined', {}).get(task, {}),
      curve=plan.workspace.metrics(run.name),
      outputs=plan.workspace.outputs(run.name),
      quality=record.get('quality', {}).get(task, {}),
      share=record.get('shares', {}).get(task),
      decisions=record.get('decisions', {}).get(task, {})
      if decisions.wanted(plan.tasks[task], plan.config)
      else {},
    )
    for run, record in finished
    for task, splits in record['scores'].items()
  ]
  weak = weak_models.find(plan, finished)
  known = baselines.read(plan)
  warnings = [
    *(found.text for found in weak.values()),
    *baselines.describe_missing(known, plan.tasks),
  ]
  for warning in warnings:
    logging.warning('%s', warning)
  # Imported here, because these modules import pandas and matplotlib, which
  # takes seconds that other commands should not spend.
  from bam_jax.experiments import error_analysis
  from bam_jax.reporting import report as report_lib

  headline = report_lib.write(
    plan.workspace.root,
    plan.config,
    plan.tasks,
    scores,
    _notes(plan, finished, known),
    [
      *runs_lib.describe_short_runs(
        (run, runs_lib.steps_taken(record)) for run, record in finished
      ),
      *warnings,
    ],
    known,
    {task: found.variants for task, found in weak.items()},
    error_analysis.analyse(plan, [run for run, _ in finished]),
  )
  for sentence in headline:
    logging.info('%s', escape.plain(sentence))
  logging.info('report: %s', plan.workspace.root / 'report.html')


def _notes(
  plan: plan_lib.Plan,
  finished: list[tuple[runs_lib.Run, Mapping[str, object]]],
  known: Mapping[str, Mapping],
) -> dict[str, str]:
  """Returns the report's notes on the configuration and the finished runs.

  `known` is the result of `baselines.read`.
  """
  config, encoder = plan.config, plan.encoder
  records = [record for _, record in finished]
  external = dict.fromkeys(
    teacher for run, _ in finished for teacher in plan.external_teachers(run)
  )
  seconds = sum(record['seconds'] for record in records)
  versions = {record.get('versions', 'not recorded') for record in records}
  notes = {
    'note': config.note,
    'shard': config.plan.shard
    and f'{config.plan.shard} of the plan, whose seeds are'
    f' {", ".join(map(str, config.seeds))}',
    'rows without labels': config.data.unlabelled
    and f'{", ".join(config.data.unlabelled)}; only taught variants',
    'patience': _describe_patience(finished),
    'searched settings': plan.search_result.scores
    and search.describe(plan.search_result),
    'external teachers': '; '.join(external),
    **baselines.describe(known),
    'pretrained weights': encoder.description,
    'encoder': (
      f'{encoder.config.num_layers} layers x {encoder.config.hidden_size}'
    ),
    'training time': f'{seconds:.0f} s over the runs in the tables',
    'trained on': ', '.join(sorted({record['device'] for record in records})),
    'trained with': '; '.join(sorted(versions)),
  }
  return {name: note for name, note in notes.items() if note}


def _describe_patience(
  finished: list[tuple[runs_lib.Run, Mapping[str, object]]],
) -> str:
  """Describes the steps at which the runs with patience are scored."""
  steps: dict[str, list[int]] = {}
  for run, record in finished:
    if run.held_out:
      steps.setdefault(run.variant, []).append(record['steps'])
  if not steps:
    return ''
  spans = {name: sorted({min(s), max(s)}) for name, s in steps.items()}
  chosen = (f'{name} {" to ".join(map(str, s))}' for name, s in spans.items())
  return (
    'these variants are scored at their best step on training rows that were'
    f' left out of training, not on dev: {", ".join(chosen)}'
  )
