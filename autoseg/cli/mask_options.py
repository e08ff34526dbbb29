"""Options of the commands that read folders of masks."""

from __future__ import annotations

from typing import Annotated

import typer

LISTS = dict.fromkeys(("--names", "--channel-names"), r"[^-].*")
"""Options that take several values in a row."""
InstancesOption = Annotated[
    bool, typer.Option("--instances", help="Values above 0 are numbers of objects; touching ones get a gap.")
]
NamesOption = Annotated[
    list[str] | None, typer.Option("--names", metavar="NAME ...", help="Of the classes, background first.")
]
ChannelNamesOption = Annotated[
    list[str] | None, typer.Option("--channel-names", metavar="NAME ...", help="Of the images.")
]
MaskSuffixOption = Annotated[
    str | None,
    typer.Option("--mask-suffix", help="What names of masks have behind those of images (default: found)."),
]
