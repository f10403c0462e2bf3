"""Trains with Hugging Face's `Trainer`, as a process of `start`."""

import argparse
import json
from pathlib import Path
import tempfile

import transformers


class LogSteps(transformers.TrainerCallback):
  """Writes the step to a file after each step."""

  def __init__(self, path: Path):
    self._path = path

  def on_step_end(self, unused_args, state, *unused, **ignored) -> None:
    self._path.write_text(f'{state.global_step}\n')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', required=True, type=Path)
  parser.add_argument('--model', required=True)
  parser.add_argument('--log', required=True, type=Path)
  args = parser.parse_args()
  with args.rows.open() as lines:
    rows = [json.loads(line) for line in lines]
  tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
  encoded = tokenizer(
    *zip(*(row['texts'] for row in rows)), truncation=True, max_length=128
  )
  dataset = [
    {key: values[i] for key, values in encoded.items()}
    | {'labels': row['label']}
    for i, row in enumerate(rows)
  ]
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
    args.model, num_labels=1 + max(row['label'] for row in rows)
  )
  with tempfile.TemporaryDirectory() as directory:
    transformers.Trainer(
      model=model,
      args=transformers.TrainingArguments(
        output_dir=directory,
        per_device_train_batch_size=32,
        report_to='none',
        save_strategy='no',
      ),
      train_dataset=dataset,
      data_collator=transformers.DataCollatorWithPadding(tokenizer),
      callbacks=[LogSteps(args.log)],
    ).train()


if __name__ == '__main__':
  main()
