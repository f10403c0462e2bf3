"""What options and values of Hugging Face's Trainer are called here.

Error messages for unknown flags, fields and values look here first.
"""


def _of_both(field: str) -> str:
  return f'config.single.{field} or config.multi.{field}'


_MODEL = 'config.model.init'
_EVALUATE = 'config.train.evaluate_every, in steps'
_CHECKPOINT = 'config.train.checkpoint_every, in steps'
_LOG = 'config.train.log_every, in steps'
_WARMUP = 'config.optimizer.warmup, a share of the steps from 0 to 1'
_BATCH = f'{_of_both("batch_size")}, over all devices'
_CPU = 'JAX_PLATFORMS=cpu in the environment'
_EXPORT = '--mode=export writes directories for transformers'
_HARD = 'gold labels stay hard, and the predictions of a teacher are soft'
_FEWER = 'give files with fewer rows'
_TASK = 'config.custom_tasks.TASK'

# Options of the Trainer, of run_glue.py, and short names for them. Names that
# are like those of the field or flag are left out: `difflib` finds them.
OPTIONS = {
  'adam_beta1': 'config.optimizer.b1',
  'adam_beta2': 'config.optimizer.b2',
  'adam_epsilon': 'config.optimizer.eps',
  'bf16': 'config.model.dtype=bfloat16, the default on accelerators',
  'config_name': _MODEL,
  'data_seed': 'config.seeds',
  'deepspeed': 'config.mesh.fsdp, for parameters that devices share',
  'do_eval': '--mode=run, which scores too, or --mode=evaluate afterwards',
  'do_predict': '--mode=predict',
  'do_train': '--mode=run, the default',
  'early_stopping_patience': (
    f'{_of_both("patience")}, with config.train.evaluate_every'
  ),
  'eval_batch_size': 'config.packing.eval_rows',
  'eval_steps': _EVALUATE,
  'eval_strategy': _EVALUATE,
  'evaluation_strategy': _EVALUATE,
  'fp16': 'config.model.dtype, which is float32 or bfloat16, never float16',
  'gradient_accumulation_steps': (
    'config.train.accumulate, the parts that a batch is computed in; the batch'
    ' stays as large'
  ),
  'gradient_checkpointing': 'config.model.remat',
  'label_column': f'{_TASK}.label',
  'label_column_name': f'{_TASK}.label',
  'load_best_model_at_end': (
    'config.train.evaluate_every: predict, serve and export then take the best'
    ' step'
  ),
  'logging_dir': '--workdir, where each run has a folder for TensorBoard',
  'logging_steps': _LOG,
  'logging_strategy': _LOG,
  'lr': _of_both('learning_rate'),
  'lr_scheduler_type': 'config.optimizer.schedule',
  'max_grad_norm': 'config.optimizer.clip_norm',
  'metric_for_best_model': f"the first of a task's metrics, {_TASK}.metrics",
  'model_name': _MODEL,
  'model_name_or_path': _MODEL,
  'no_cuda': _CPU,
  'num_epochs': _of_both('epochs'),
  'num_labels': f'{_TASK}.labels, or none: the training rows have them',
  'num_train_epochs': _of_both('epochs'),
  'output_dir': '--workdir',
  'pad_to_max_length': 'config.packing.enabled=False',
  'per_device_eval_batch_size': 'config.packing.eval_rows',
  'per_device_train_batch_size': _BATCH,
  'report_to': 'config.train.trackers; TensorBoard is on by default',
  'resume_from_checkpoint': 'the same command again, which always continues',
  'run_name': 'config.name',
  'save_steps': _CHECKPOINT,
  'save_strategy': _CHECKPOINT,
  'seed': 'config.seeds',
  'task_name': 'config.tasks',
  'test_file': f'{_TASK}.test',
  'text_column': f'{_TASK}.text',
  'text_column_name': f'{_TASK}.text',
  'text_column_names': f'{_TASK}.text',
  'tokenizer_name': f'{_MODEL}, which has its tokenizer',
  'train_batch_size': _BATCH,
  'train_file': f'{_TASK}.train',
  'use_cpu': _CPU,
  'validation_file': f'{_TASK}.dev',
  'warmup_ratio': _WARMUP,
  'warmup_steps': _WARMUP,
}

# What this package does instead of an option that it has not.
ABSENT = {
  'dataset_name': (
    f"save a Dataset by save_to_disk and give {_TASK}.format='datasets'"
  ),
  'dataloader_num_workers': 'config.train.prefetch batches are made ahead',
  'greater_is_better': 'a greater value of any metric is better',
  'group_by_length': 'short examples share a row, see config.packing',
  'hub_model_id': _EXPORT,
  'label_smoothing': _HARD,
  'label_smoothing_factor': _HARD,
  'max_eval_samples': _FEWER,
  'max_predict_samples': _FEWER,
  'max_train_samples': _FEWER,
  'optim': "BERT's Adam is the only optimizer, set by config.optimizer",
  'overwrite_output_dir': (
    'a work directory is continued, never overwritten; give another --workdir,'
    ' or remove it'
  ),
  'push_to_hub': _EXPORT,
  'save_total_limit': 'a run keeps its latest and its best checkpoint',
  'torch_compile': 'all steps are compiled by XLA',
}

# Short or other names of values. `difflib` finds those that are alike.
_VALUES = {
  'acc': 'accuracy',
  'auc': 'roc_auc',
  'auroc': 'roc_auc',
  'bf16': 'bfloat16',
  'em': 'exact_match',
  'fp32': 'float32',
  'linear': 'warmup_linear',
  'mae': 'neg_mean_absolute_error',
  'matthews_correlation': 'matthews',
  'mcc': 'matthews',
  'seqeval': 'span_f1',
}
_GUIDE = 'docs/guides/moving.md'


def describe_option(name: str) -> str:
  """Returns what an option is called here, to end an error message with.

  Empty if the Trainer has no such option.

  >>> describe_option('output_dir')
  '; here it is --workdir (docs/guides/moving.md)'
  """
  name = name.replace('-', '_')
  if name in OPTIONS:
    return f'; here it is {OPTIONS[name]} ({_GUIDE})'
  return f'; not here: {ABSENT[name]} ({_GUIDE})' if name in ABSENT else ''


def translate_value(value: str) -> str:
  """Returns this package's name of a value that has another one elsewhere."""
  return _VALUES.get(value, value)
