"""The command `export`: writes models for use without this package."""

import itertools
import logging
from pathlib import Path

from bam_jax.experiments import baselines
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import weak_models
from bam_jax.inference import card
from bam_jax.inference import export as export_lib
from bam_jax.inference import stablehlo
from bam_jax.modeling import layers
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib

# Form -> suffix of the default folder's name, and the function that writes it.
FORMS = {
  'hf': ('', export_lib.export),
  'stablehlo': ('-stablehlo', stablehlo.export),
}


def export(
  plan: plan_lib.Plan,
  group: str | None,
  form: str = 'hf',
  directory: Path | None = None,
) -> None:
  """Exports the best checkpoints of a group of runs.

  The form `hf` writes a Hugging Face directory `DIRECTORY/TASK/` per task, and
  `DIRECTORY/all/` for a model of several tasks. The form `stablehlo` writes one
  program per model: to `DIRECTORY/TASK/` for a model of one task, and to
  `DIRECTORY/all/` for a model of several tasks. The default directory is
  `exports/GROUP` or `exports/GROUP-stablehlo`.
  """
  group, runs = plan.find_group(group)
  suffix, write = FORMS[form]
  directory = directory or plan.workspace.root / 'exports' / f'{group}{suffix}'
  known = baselines.read(plan)
  for run in runs:
    record, decided = plan.read_record(run), plan.decided_tasks(run)
    params = plan.restore_params(run.name, best=True)
    teachers = itertools.chain(
      *run.teachers.values(), plan.external_teachers(run)
    )
    processes.run_on_first(
      write,
      directory,
      plan.encoder.config,
      plan.encoder.tokenizer,
      mesh_lib.fetch(layers.unstack(params)),
      run.tasks,
      task_lib.TaskTable(
        tuple(decided.get(task.name, task) for task in plan.tasks.tasks)
      ),
      card.Facts(
        name=plan.config.name,
        run=run.name,
        variant=run.variant,
        teachers=tuple(dict.fromkeys(teachers)),
        encoder=plan.encoder.description,
        note=plan.config.note,
        max_length=plan.config.data.max_length,
        record=record,
        baselines={
          task: known[task]['scores'] for task in run.tasks if task in known
        },
        weak={
          task: found.text
          for task, found in weak_models.find(plan, [(run, record)]).items()
        },
      ),
    )
  logging.info('exported: %s', directory)
