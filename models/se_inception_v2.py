"""SE-BN-Inception: Inception-v2 with squeeze-and-excitation after each of its ten blocks.

J. Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507. As in the authors' Caffe model, the two
reduction blocks are followed by squeeze-and-excitation too, channels are divided by 16, and convolutions have no bias.
The authors published weights for Caffe only, so here the weights are random or the user's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from models import inception_v2
from models.spec import ModelSpec

SPEC = ModelSpec(
    name="se_inception_v2",
    build=partial(inception_v2.InceptionV2, se=16, conv_bias=False),
    head="last_linear",
    # The Caffe model subtracts 123 from red, where the port of BN-Inception subtracts 128.
    preprocessing=replace(inception_v2.SPEC.preprocessing, mean=(123 / 255, 117 / 255, 104 / 255)),
    weights={},
)
