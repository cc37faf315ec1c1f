"""What the papers print in their tables of poses: EGL++ Table 1, LL++ Table 3.

EGL++: M. Shukla, WACV 2022; LL++: M. Shukla and S. Ahmed, CVPR workshops 2021. Means
and standard deviations of five runs, 1,000 labelled and 1,000 more at each stage. Of
EGL++'s LSP half the text at hand is cut short: EGL++'s own row is in none of it, and of
multi-peak entropy two stages are lost. There Learning Loss is LL++'s row of the same
runs, and core-set's mean at 3,000 is too.
"""

from typing import NamedTuple

from jalpose.report.text_formats import MeanSd

STAGES = 5


class Printed(NamedTuple):
    """A table of a paper for one data set.

    Attributes:
      name: stem of the report's table.
      title: which table of which paper it is, and of what.
      stages: what stands above its columns, by stage.
      rows: by the paper's name of a method: mean and deviation at each stage, None
        where it is not known.
      p: likewise, p of a one-tailed paired t-test that `proposed` is better.
      proposed: the paper's own method.
      selected: it is of the images selected before training on them, not of the test
        set.
      percent: in percent, not in shares of one.
    """

    name: str
    title: str
    stages: tuple[str, ...]
    rows: dict[str, tuple[MeanSd | None, ...]]
    p: dict[str, tuple[float | None, ...]]
    proposed: str
    selected: bool = False
    percent: bool = False


def _pairs(text: str) -> tuple[MeanSd | None, ...]:
    """Read "75.95 .55 78.33 .65 ...", with "- -" for what is not known."""
    words = text.split()
    found = zip(words[::2], words[1::2], strict=True)
    return tuple(None if m == "-" else MeanSd(float(m), float(s)) for m, s in found)


def _numbers(text: str) -> tuple[float | None, ...]:
    return tuple(None if word == "-" else float(word) for word in text.split())


_LABELLED = ("2000", "3000", "4000", "5000", "6000")
_S = ("S1", "S2", "S3", "S4", "S5")

EGLPP_MPII = Printed(
    "printed_eglpp_1",
    "Table 1 of EGL++, MPII: PCKh@0.5 in percent",
    _LABELLED,
    {
        "Random": _pairs("75.95 .55 78.33 .65 80.31 .91 81.35 .41 82.23 .74"),
        "Core-set": _pairs("76.61 .60 79.24 .70 81.25 .67 82.23 1.14 82.97 1.11"),
        "Multi-peak": _pairs("76.74 .61 79.56 .46 81.19 .31 82.61 .50 83.11 .71"),
        "Learning Loss": _pairs("76.28 .76 79.27 .52 81.35 .35 82.94 .44 83.79 .46"),
        "EGL++": _pairs("77.28 .63 79.58 .33 81.53 .51 83.07 .25 84.00 .38"),
    },
    {
        "Random": _numbers(".003 .012 .006 .001 .007"),
        "Core-set": _numbers(".0047 .245 .072 .123 .064"),
        "Multi-peak": _numbers(".0054 .462 .063 .093 .062"),
        "Learning Loss": _numbers(".0276 .185 .152 .319 .053"),
    },
    "EGL++",
    percent=True,
)
EGLPP_LSP = Printed(
    "printed_eglpp_1",
    "Table 1 of EGL++, LSP to LSPET: PCK@0.2 in percent",
    _LABELLED,
    {
        "Random": _pairs("80.34 .31 81.81 .24 82.68 .32 83.35 .36 84.13 .16"),
        "Core-set": _pairs("79.69 .82 81.4 .45 82.25 .39 83.11 .38 83.73 .31"),
        "Multi-peak": _pairs("- - - - 82.63 .23 83.29 .20 84.30 .44"),
        "Learning Loss": _pairs("79.6 .4 81.4 .3 82.3 .4 83.3 .3 84.2 .5"),
        "EGL++": _pairs("- - - - - - - - - -"),
    },
    {
        "Random": _numbers(".285 .297 .138 .095 .029"),
        "Core-set": _numbers(".043 .096 .021 .032 .006"),
        "Multi-peak": _numbers("- - .119 .036 -"),
    },
    "EGL++",
    percent=True,
)
LLPP_LSP = (
    Printed(
        "printed_llpp_3a",
        "Table 3a of LL++, LSP to LSPET: PCK@0.2 of the images selected",
        _LABELLED,
        {
            "Random": _pairs(".430 .017 .527 .012 .593 .007 .624 .009 .645 .007"),
            "Core-set": _pairs(".288 .017 .438 .020 .447 .017 .493 .013 .556 .010"),
            "Learning Loss": _pairs(
                ".305 .013 .253 .021 .358 .025 .520 .011 .617 .017"
            ),
            "LL++": _pairs(".250 .011 .186 .022 .385 .011 .533 .020 .627 .012"),
            "LL++conv": _pairs(".209 .018 .214 .028 .400 .010 .545 .011 .635 .012"),
        },
        {},
        "LL++",
        selected=True,
    ),
    Printed(
        "printed_llpp_3b",
        "Table 3b of LL++, LSP to LSPET: PCK@0.2 of the test images",
        _S,
        {
            "Random": _pairs(".803 .003 .818 .002 .827 .003 .834 .003 .841 .002"),
            "Core-set": _pairs(".797 .008 .814 .004 .822 .004 .831 .004 .837 .003"),
            "Learning Loss": _pairs(
                ".796 .004 .814 .003 .823 .004 .833 .003 .842 .005"
            ),
            "LL++": _pairs(".798 .005 .810 .003 .824 .006 .831 .004 .841 .002"),
            "LL++conv": _pairs(".798 .005 .813 .002 .825 .003 .832 .005 .840 .005"),
        },
        {},
        "LL++",
    ),
)
LLPP_MPII = (
    Printed(
        "printed_llpp_3a",
        "Table 3a of LL++, MPII: PCKh@0.5 of the images selected",
        ("1000", "2000", "3000", "4000", "5000"),
        {
            "Random": _pairs(".663 .012 .739 .013 .766 .003 .792 .007 .797 .006"),
            "Core-set": _pairs(".384 .014 .522 .009 .608 .012 .697 .009 .755 .029"),
            "Learning Loss": _pairs(
                ".311 .036 .465 .024 .621 .017 .735 .012 .777 .010"
            ),
            "LL++": _pairs(".291 .022 .439 .018 .610 .020 .705 .023 .762 .014"),
            "LL++conv": _pairs(".309 .029 .439 .011 .603 .016 .704 .022 .777 .008"),
        },
        {},
        "LL++",
        selected=True,
    ),
    Printed(
        "printed_llpp_3b",
        "Table 3b of LL++, MPII: PCKh@0.5 of the test images",
        _S,
        {
            "Random": _pairs(".76 .006 .783 .006 .803 .009 .813 .004 .822 .007"),
            "Core-set": _pairs(".766 .006 .792 .007 .812 .007 .822 .011 .83 .011"),
            "Learning Loss": _pairs(
                ".763 .007 .793 .005 .814 .004 .829 .004 .838 .005"
            ),
            "LL++": _pairs(".763 .007 .791 .008 .811 .005 .822 .005 .827 .009"),
            "LL++conv": _pairs(".760 .009 .790 .008 .808 .005 .828 .003 .836 .006"),
        },
        {},
        "LL++",
    ),
)

# By the name of the config: those of configs/experiments.
OF_CONFIG: dict[str, tuple[Printed, ...]] = {
    "eglpp_table1_lsp": (EGLPP_LSP,),
    "eglpp_table1_mpii": (EGLPP_MPII,),
    "llpp_table3_lsp": LLPP_LSP,
    "llpp_table3_mpii": LLPP_MPII,
}

# Of the same protocol: those of another paper, shown where its own method was run too.
BESIDE: dict[str, tuple[Printed, ...]] = {
    "eglpp_table1_lsp": LLPP_LSP,
    "eglpp_table1_mpii": LLPP_MPII,
    "llpp_table3_lsp": (EGLPP_LSP,),
    "llpp_table3_mpii": (EGLPP_MPII,),
}
