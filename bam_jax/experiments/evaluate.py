"""The command `evaluate`: scores finished runs again from their checkpoints."""

from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import report
from bam_jax.experiments import run_data
from bam_jax.training import evaluate as evaluate_lib


def evaluate(plan: plan_lib.Plan) -> None:
  """Scores the last checkpoints of all finished runs, and reports."""
  finished = [run for run in plan.runs if plan.workspace.read_record(run.name)]
  plan.open_runs(plan.runs, finished)
  for run in finished:
    record = plan.workspace.read_record(run.name)
    dev = run_data.dev_splits(run, plan.tasks, plan.features)
    outputs, scores = evaluate_lib.evaluate(
      plan.setup.programs,
      plan.restore_params(run.name),
      dev,
      plan.config,
      lambda _: plan.preemption_signal.check(),
    )
    entries = records.save_outputs(
      run.name,
      plan.workspace.outputs(run.name),
      dev,
      outputs,
      scores,
      plan.tasks,
    )
    quality = entries.pop('quality')
    plan.workspace.write_record(
      run.name, records.add_quality(record | entries, quality)
    )
  report.report(plan)
