"""Translates names from Hugging Face's Trainer to names of this package.

Error messages for unknown flags, fields and values contain the translations.
"""

from collections.abc import Mapping
import types

NO_NAMES = types.MappingProxyType({})


def _of_both(field: str) -> str:
  return f'config.single.{field} or config.multi.{field}'


_MODEL = 'config.model.init'
_TOKENIZER = f'{_MODEL}, which has its tokenizer'
_EVALUATE = 'config.train.evaluate_every, in steps'
_CHECKPOINT = 'config.train.checkpoint_every, in steps'
_LOG = 'config.train.log_every, in steps'
_SCHEDULE = 'config.optimizer.schedule, with config.optimizer.warmup'
_WARMUP = 'config.optimizer.warmup, a share of the steps from 0 to 1'
_RATE = _of_both('learning_rate')
_EPOCHS = _of_both('epochs')
_BATCH = f'{_of_both("batch_size")}, over all devices'
_DTYPE = 'config.model.dtype, which is float32 or bfloat16, never float16'
_PADDING = 'config.packing.enabled=False'
_EVAL_ROWS = 'config.packing.eval_rows'
_CPU = 'JAX_PLATFORMS=cpu in the environment'
_DEVICE = 'JAX_PLATFORMS in the environment, such as cpu or cuda'
_REMAT = 'config.model.remat'
_TASK = 'config.custom_tasks.TASK'
_TRAIN, _DEV, _TEST = (f'{_TASK}.{split}' for split in ('train', 'dev', 'test'))
_TEXT = f'{_TASK}.text'
_LABEL = f'{_TASK}.label'
_LABELS = f'{_TASK}.labels, or none: the training rows have them'

# Option of the Trainer or of run_glue.py, or its common short name -> the flag
# or field of this package. An option is left out if its name is similar to the
# name in this package, because `difflib` finds it. docs/guides/moving.md lists
# all these options, and the options of `ABSENT`.
OPTIONS = {
  'adam_beta1': 'config.optimizer.b1',
  'adam_beta2': 'config.optimizer.b2',
  'adam_epsilon': 'config.optimizer.eps',
  'bf16': 'config.model.dtype=bfloat16, the default on accelerators',
  'bf16_full_eval': 'config.model.dtype, for training and scoring',
  'cache_dir': 'HF_HOME in the environment',
  'compute_metrics': f'{_TASK}.metrics, which are names',
  'config_name': _MODEL,
  'data_seed': 'config.seeds',
  'deepspeed': 'config.mesh.fsdp, for parameters that devices share',
  'device': _DEVICE,
  'do_eval': '--mode=run, which scores too, or --mode=evaluate afterwards',
  'do_predict': '--mode=predict',
  'do_regression': f'{_TASK}.kind=regression',
  'do_train': '--mode=run, the default',
  'early_stopping_patience': (
    f'{_of_both("patience")}, with config.train.evaluate_every'
  ),
  'eval_accumulation_steps': _EVAL_ROWS,
  'eval_batch_size': _EVAL_ROWS,
  'eval_dataset': _DEV,
  'eval_steps': _EVALUATE,
  'eval_strategy': _EVALUATE,
  'evaluation_strategy': _EVALUATE,
  'fp16': _DTYPE,
  'fp16_full_eval': _DTYPE,
  'fsdp_config': 'config.mesh.fsdp, the devices that share one copy',
  'full_determinism': 'config.train.deterministic',
  'gradient_accumulation_steps': (
    'config.train.accumulate, the parts that a batch is computed in; the batch'
    ' stays as large'
  ),
  'gradient_checkpointing': _REMAT,
  'gradient_checkpointing_kwargs': _REMAT,
  'half_precision_backend': _DTYPE,
  'id2label': _LABELS,
  'label2id': _LABELS,
  'label_column': _LABEL,
  'label_column_name': _LABEL,
  'label_names': _LABELS,
  'load_best_model_at_end': (
    'config.train.evaluate_every: predict, serve and export then take the best'
    ' step'
  ),
  'log_level': '--verbosity, 0 for information and -1 for warnings',
  'logging_dir': '--workdir, where each run has a folder for TensorBoard',
  'logging_steps': _LOG,
  'logging_strategy': _LOG,
  'lr': _RATE,
  'lr_scheduler_kwargs': _SCHEDULE,
  'lr_scheduler_type': _SCHEDULE,
  'max_grad_norm': 'config.optimizer.clip_norm',
  'metric_for_best_model': f"the first of a task's metrics, {_TASK}.metrics",
  'metric_name': f'{_TASK}.metrics',
  'model_name': _MODEL,
  'model_name_or_path': _MODEL,
  'no_cuda': _CPU,
  'num_epochs': _EPOCHS,
  'num_labels': _LABELS,
  'num_train_epochs': _EPOCHS,
  'output_dir': '--workdir',
  'pad_to_max_length': _PADDING,
  'padding': _PADDING,
  'per_device_eval_batch_size': _EVAL_ROWS,
  'per_device_train_batch_size': _BATCH,
  'place_model_on_device': _DEVICE,
  'problem_type': f'{_TASK}.kind',
  'processing_class': _TOKENIZER,
  'report_to': 'config.train.trackers; TensorBoard is on by default',
  'resume_from_checkpoint': 'the same command again, which always continues',
  'run_name': 'config.name',
  'save_steps': _CHECKPOINT,
  'save_strategy': _CHECKPOINT,
  'seed': 'config.seeds',
  'task_name': 'config.tasks',
  'test_dataset': _TEST,
  'test_file': _TEST,
  'text_column': _TEXT,
  'text_column_name': _TEXT,
  'text_column_names': _TEXT,
  'token': 'HF_TOKEN in the environment',
  'tokenizer': _TOKENIZER,
  'tokenizer_name': _TOKENIZER,
  'train_batch_size': _BATCH,
  'train_dataset': _TRAIN,
  'train_file': _TRAIN,
  'truncation': 'config.data.max_length',
  'use_cpu': _CPU,
  'validation': _DEV,
  'validation_file': _DEV,
  'warmup_ratio': _WARMUP,
  'warmup_steps': _WARMUP,
}

_ADAM = "BERT's Adam is the only optimizer, set by config.optimizer"
_COMPILED = 'all steps are compiled by XLA'
_DATASET = f"save a Dataset by save_to_disk and give {_TASK}.format='datasets'"
_EXPORT = '--mode=export writes directories for transformers'
_FEWER = 'give files with fewer rows'
_HARD = 'gold labels stay hard, and the predictions of a teacher are soft'
_ONE_PROCESS = (
  'one process uses all devices of a machine; several machines are joined by'
  ' --coordinator or --distributed'
)
_PACKED = 'short examples share a row, see config.packing'
_PREFETCH = 'config.train.prefetch batches are made ahead'

# Option without an equivalent -> what this package does instead.
ABSENT = {
  'auto_find_batch_size': (
    'config.train.accumulate=2 computes a batch in two parts, in less memory'
  ),
  'callbacks': (
    f'early stopping is {_of_both("patience")}, and trackers are'
    ' config.train.trackers'
  ),
  'data_collator': _PACKED,
  'dataloader_drop_last': 'every batch has its full number of examples',
  'dataloader_num_workers': _PREFETCH,
  'dataloader_persistent_workers': _PREFETCH,
  'dataloader_pin_memory': _PREFETCH,
  'dataloader_prefetch_factor': _PREFETCH,
  'dataset_config_name': _DATASET,
  'dataset_name': _DATASET,
  'ddp_backend': _ONE_PROCESS,
  'ddp_find_unused_parameters': _ONE_PROCESS,
  'ddp_timeout': _ONE_PROCESS,
  'disable_tqdm': 'progress is log lines, every config.train.log_every steps',
  'greater_is_better': 'a greater value of any metric is better',
  'group_by_length': _PACKED,
  'hub_model_id': _EXPORT,
  'hub_private_repo': _EXPORT,
  'hub_strategy': _EXPORT,
  'hub_token': _EXPORT,
  'ignore_mismatched_sizes': 'each task has a head of its own, of its size',
  'label_smoothing': _HARD,
  'label_smoothing_factor': _HARD,
  'local_rank': _ONE_PROCESS,
  'max_eval_samples': _FEWER,
  'max_predict_samples': _FEWER,
  'max_train_samples': _FEWER,
  'neftune_noise_alpha': (
    'dropout is the only noise on embeddings, config.model.dropout_embedding'
  ),
  'nproc_per_node': _ONE_PROCESS,
  'num_workers': _PREFETCH,
  'optim': _ADAM,
  'optim_args': _ADAM,
  'optimizer_name': _ADAM,
  'overwrite_cache': 'tokens are made again whenever their inputs change',
  'overwrite_output_dir': (
    'a work directory is continued, never overwritten; give another --workdir,'
    ' or remove it'
  ),
  'push_to_hub': _EXPORT,
  'remove_unused_columns': 'only the columns that a task names are read',
  'save_only_model': (
    'the optimizer state of a finished run is removed, but for'
    ' config.train.keep_optimizer'
  ),
  'save_safetensors': _EXPORT,
  'save_total_limit': 'a run keeps its latest and its best checkpoint',
  'torch_compile': _COMPILED,
  'torch_compile_backend': _COMPILED,
  'torch_compile_mode': _COMPILED,
  'train_sampling_strategy': _PACKED,
  'trust_remote_code': 'no code that comes with a model is run',
}

# Name of a value elsewhere -> name of the value in this package. Similar names
# are left out, because `difflib` finds them.
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
  'multi_label': 'multilabel',
  'multi_label_classification': 'multilabel',
  'ner': 'tagging',
  'question_answering': 'qa',
  'seqeval': 'span_f1',
  'similarity': 'regression',
  'single_label_classification': 'classification',
  'squad': 'qa',
  'sts': 'regression',
  'text_classification': 'classification',
  'token_classification': 'tagging',
}
_GUIDE = 'docs/guides/moving.md'


def describe_option(name: str, own: Mapping[str, str] = NO_NAMES) -> str:
  """Returns this package's name for an option, as the end of an error message.

  If the package has no such option, the text says what it does instead. If the
  option is unknown, the text is empty.

  Args:
    name: name of the option; `-` and `_` are treated as equal.
    own: option -> its name in a command that has its own flags.

  >>> describe_option('output_dir')
  '; here it is --workdir (docs/guides/moving.md)'
  >>> describe_option('output_dir', {'output_dir': '--output'})
  '; here it is --output'
  """
  name = name.replace('-', '_')
  if name in own:
    return f'; here it is {own[name]}'
  if name in OPTIONS:
    return f'; here it is {OPTIONS[name]} ({_GUIDE})'
  return f'; not here: {ABSENT[name]} ({_GUIDE})' if name in ABSENT else ''


def describe_task_field(name: str) -> str:
  """Like `describe_option`, for a field of `bam_jax.Task`.

  >>> describe_task_field('validation')
  '; here it is dev (docs/guides/moving.md)'
  """
  return describe_option(name).replace(f'{_TASK}.', '')


def translate_value(value: str) -> str:
  """Returns this package's name for a value, or an unknown value unchanged."""
  return _VALUES.get(value.replace('-', '_'), value)
