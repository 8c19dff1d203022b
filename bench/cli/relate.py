"""The command `relate`: how the tasks of finished cells relate."""

from __future__ import annotations

from bench.cli.console import command_parser, print_table

OUT = "relations"
WIDEST = 10  # tasks whose matrix fits a terminal

EXAMPLES = """\
examples
  python -m bench relate
      softcpt's cells below runs/: what each task scores in the others' contexts, how alike tasks are, and which
      likeness goes with which gain; printed, and as tables and a picture in relations/
  python -m bench relate --results runs/plant6 --data ~/data --method coop --shots 16 --out plant6-relations
      contexts that CoOp learned for each task alone: compared by what they do to names
  python -m bench relate --cell 3f9a2c --data ~/data
      where the folder has several settings: this cell, and those that differ from it in the seed alone

reading it
  swap       row: whose context; column: whose test images and names; points above zero-shot with the own template
  gains      need cells of the same method, shots and seeds on fewer tasks in the folder: each task alone, or pairs
  rho, p     Spearman's correlation over pairs of tasks; Mantel's one-sided p, from permutations of tasks
  ceiling    the largest |rho| that noise between seeds leaves
docs/task-sharing.md tells what each measure is, and which runs give the gains.
"""


def relate_command(argv: list[str]) -> int:
    from bench.relating import RelateConfig, related

    about = (
        "How tasks relate, from what finished cells have learned for each of them; nothing is trained. The cells are "
        "those of one method and setting, with all their seeds, whose learned parameters were kept."
    )
    p = command_parser("relate", about, EXAMPLES)
    p.add_settings(RelateConfig, "")
    config = RelateConfig(**{"out": OUT, **vars(p.read(argv))})
    found = related(config)
    frames = found.frames
    print(f"{'DEMO: ' * found.demo}{found.about}")
    swap = frames["swap"]
    if len(swap) <= WIDEST:
        print("\nswap: points above zero-shot; row: whose context, column: whose images and names")
        print_table((swap.round(1) + 0).reset_index(), floatfmt=".1f")  # + 0: no "-0.0"
    for name, told in (
        ("spectrum", "spectrum of K = F F': how much the first directions of the task features hold (shares)"),
        ("gains", "gain of joint training: accuracy with all tasks, alone, and the difference (points)"),
        ("association", "which likeness goes with which gain"),
    ):
        if name in frames and len(frames[name]):
            print(f"\n{told}")
            print_table(frames[name], floatfmt=".1f" if name == "gains" else ".4f" if name == "association" else ".3f")
    for note in found.notes:
        print(note)
    print(f"Tables and the picture are in {config.out}.")
    return 0
