"""Convolutional networks as functions build them: MobileNetV3, ResNeXt and a U-Net, of a few layers each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 3


class Excite(nn.Module):
    """Squeeze and excite: a factor for each channel, from the means of all."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = self.conv_reduce(x.mean((2, 3), keepdim=True)).relu()
        return x * nn.functional.hardsigmoid(self.conv_expand(means))


class InvertedV3(nn.Module):
    """An inverted residual block of MobileNetV3, named as timm names it."""

    def __init__(self, i: int, wide: int, o: int, *, taps: int, stride: int, excites: bool) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = nn.Conv2d(i, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv_dw = nn.Conv2d(wide, wide, taps, stride, taps // 2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.se = Excite(wide, 16) if excites else nn.Identity()
        self.conv_pwl, self.bn3 = nn.Conv2d(wide, o, 1, bias=False), nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        wide = nn.functional.hardswish(self.bn1(self.conv_pw(x)))
        wide = self.se(nn.functional.hardswish(self.bn2(self.conv_dw(wide))))
        out: Tensor = self.bn3(self.conv_pwl(wide))
        return out + x if out.shape == x.shape else out


class MobileNetV3(nn.Module):
    """Three blocks, two with squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            InvertedV3(16, 32, 16, taps=3, stride=1, excites=False),
            InvertedV3(16, 64, 24, taps=5, stride=2, excites=True),
            InvertedV3(24, 64, 24, taps=3, stride=1, excites=True),
        )
        self.conv_head = nn.Conv2d(24, 64, 1)
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(nn.functional.hardswish(self.bn1(self.conv_stem(x))))
        x = nn.functional.hardswish(self.conv_head(x.mean((2, 3), keepdim=True)))
        out: Tensor = self.classifier(x.flatten(1))
        return out


class Cardinal(nn.Module):
    """A bottleneck block whose middle convolution is in groups, named as torchvision names it."""

    def __init__(self, i: int, wide: int, o: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3, self.bn3 = nn.Conv2d(wide, o, 1, bias=False), nn.BatchNorm2d(o)
        fits = i == o and stride == 1
        self.downsample = (
            None if fits else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn3(self.conv3(self.bn2(self.conv2(out)).relu()))
        added: Tensor = out + (x if self.downsample is None else self.downsample(x))
        return added.relu()


class ResNeXt(nn.Module):
    """Two stages of blocks in four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(
            Cardinal(16, 32, 32, stride=1, groups=4), Cardinal(32, 32, 32, stride=1, groups=4)
        )
        self.layer2 = nn.Sequential(Cardinal(32, 64, 64, stride=2, groups=4))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Double(nn.Module):
    """Two convolutions of three by three taps."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return out


class UNet(nn.Module):
    """Two steps down and two up, what came before each step laid beside; classes of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = Double(3, 16), Double(16, 32), Double(32, 64)
        self.up2, self.left2 = nn.ConvTranspose2d(64, 32, 2, 2), Double(64, 32)
        self.up1, self.left1 = nn.ConvTranspose2d(32, 16, 2, 2), Double(32, 16)
        self.head = nn.Linear(16, CLASSES)
        nn.init.normal_(self.head.weight)  # means of many spots are much alike

    def features(self, x: Tensor) -> Tensor:
        """Features of each spot."""
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        x = self.middle(nn.functional.max_pool2d(second, 2))
        x = self.left2(torch.cat([self.up2(x), second], 1))
        out: Tensor = self.left1(torch.cat([self.up1(x), first], 1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


class SegmentingUNet(UNet):
    """The same with classes of each spot, which no kind of task has."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, CLASSES, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out
