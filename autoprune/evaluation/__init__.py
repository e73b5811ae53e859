"""From a candidate to its measurement: stitched, fine-tuned under the teacher, saved, loaded and
measured.

`worker` does it, `jobs` are the messages to it, `workbench` has its models, `timers` choose where latency is
taken, `sensing` says what variants harm. `finetune` and `distillation` train, `measure` takes logits and
milliseconds. `lines` are simple models that a front has to rise above. `teacher` fits a head where a model
has none. Imports `targets`, `compress`, `workers` and what is below. Begin with `worker`.
"""
