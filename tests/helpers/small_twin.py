"""A small twin over real pairs that trains in milliseconds: dropout, mirroring, shared parameters, a test net."""

from collections.abc import Callable
from pathlib import Path

NET = """
name: "small_twin"
layer { name: "pairs" type: "Data" top: "pair" top: "sim" include { phase: TRAIN }
  transform_param { scale: 0.00390625 mirror: true } data_param { source: "pairs_leveldb" batch_size: 10 } }
layer { name: "pairs" type: "Data" top: "pair" top: "sim" include { phase: TEST }
  transform_param { scale: 0.00390625 } data_param { source: "pairs_lmdb" batch_size: 7 backend: LMDB } }
layer { name: "slice" type: "Slice" bottom: "pair" top: "data" top: "data_p" slice_param { axis: 1 } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden" param { name: "w" lr_mult: 1 }
  param { name: "b" lr_mult: 2 } inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" dropout_param { dropout_ratio: 0.3 } }
layer { name: "feat" type: "InnerProduct" bottom: "hidden" top: "feat" param { name: "fw" } param { name: "fb" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "hidden_p" type: "InnerProduct" bottom: "data_p" top: "hidden_p" param { name: "w" lr_mult: 1 }
  param { name: "b" lr_mult: 2 } inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "drop_p" type: "Dropout" bottom: "hidden_p" top: "hidden_p" dropout_param { dropout_ratio: 0.3 } }
layer { name: "feat_p" type: "InnerProduct" bottom: "hidden_p" top: "feat_p" param { name: "fw" } param { name: "fb" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "feat" bottom: "feat_p" bottom: "sim" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" test_iter: 3 test_interval: 4 base_lr: 0.01 lr_policy: "multistep" gamma: 0.5 stepvalue: 3
stepvalue: 8 momentum: 0.9 weight_decay: 0.001 max_iter: 12 display: 2 average_loss: 3 iter_size: 2
snapshot: 5 snapshot_prefix: "snap" solver_mode: CPU
"""

WriteRun = Callable[..., Path]
