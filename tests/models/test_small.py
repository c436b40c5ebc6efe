import torch
from helpers import pictures
from torch import nn

from tta_iqa_lib.models.small import Block, small_model


def test_small_model_halves_the_image_at_each_stage_but_the_first():
    """Stem and all stages after the first have stride 2; D is the last width."""
    model = small_model((4, 6, 8))
    stages = nn.Sequential(*list(model.features)[:-2])
    assert stages(pictures(2, 64)).shape == (2, 8, 8, 8)
    assert model(pictures(2, 64), with_features=True)[1].shape == (2, 8)


def test_a_block_adds_its_shortcut():
    """Both shapes of shortcut, against the formula."""
    for block in (Block(4, 4, 1).eval(), Block(4, 6, 2).eval()):
        x = torch.rand(2, 4, 8, 8)
        inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        assert torch.equal(block(x), (inner + block.shortcut(x)).relu())
        assert isinstance(block.shortcut, nn.Identity) == (block.conv1.stride == (1, 1))
