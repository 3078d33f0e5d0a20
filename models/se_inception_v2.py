"""SE-Inception-v2: BN-Inception with squeeze-and-excitation after each of its ten blocks.

J. Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507. As in the authors' Caffe model, the
reduction is 16 and convolutions have no bias. The authors' weights exist for Caffe alone, in another order of classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from models import inception_v2
from models.spec import ModelSpec

SPEC = ModelSpec(
    name="se_inception_v2",
    build=partial(inception_v2.InceptionV2, se=16, bias=False),
    head="last_linear",
    # The authors subtract 123 from red, where BN-Inception's port has 128.
    preprocessing=replace(inception_v2.SPEC.preprocessing, mean=(123 / 255, 117 / 255, 104 / 255)),
    adapt=inception_v2.from_cadene,
    weights={},
)
