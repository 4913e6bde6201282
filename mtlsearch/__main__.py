"""python -m mtlsearch: the commands, each with a word on what it does."""

from mtlsearch import __version__

COMMANDS = {
    "tune": "search a space and confirm the winner beside its baselines",
    "study": "watch a study, ask a running one for a trial, stop one",
    "report": "write the report of a study again from its folder",
    "train": "train one run config, or a published recipe by name",
    "reproduce": "train a recorded trial again and compare every number",
    "evaluate": "score a checkpoint, of faces in the papers' layout beside the papers",
    "predict": "draw landmarks and head axes on photographs and videos",
    "export": "write a checkpoint as ONNX, checked against PyTorch",
    "data": "render, pack, inspect, export and preview face data",
}


def main() -> None:
    print(f"mtlsearch {__version__}: find and train the best multi-task model for 3D face landmarks and head pose\n")
    for name, what in COMMANDS.items():
        print(f"  python -m mtlsearch.{name:<10} {what}")
    print("\nEach shows its options and examples with --help.")


if __name__ == "__main__":
    main()
