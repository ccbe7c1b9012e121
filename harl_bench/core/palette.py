"""PASCAL VOC's colors of classes: the palette of its label images."""

from functools import cache


@cache
def voc_palette() -> tuple[tuple[int, int, int], ...]:
    """Return the color of each of the 256 values of a label.

    VOCdevkit's VOClabelcolormap: three bits of the value at a time give the upper bits of red,
    green and blue.
    """
    colors = []
    for value in range(256):
        red = green = blue = 0
        for place in range(8):
            bits = value >> (3 * place)
            red |= (bits & 1) << (7 - place)
            green |= (bits >> 1 & 1) << (7 - place)
            blue |= (bits >> 2 & 1) << (7 - place)
        colors.append((red, green, blue))
    return tuple(colors)
