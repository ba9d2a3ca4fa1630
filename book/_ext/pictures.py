"""Copy the pictures that README and index show out of the executed chapters, once they are built.

A chapter marks such a cell with a tag ``picture:NAME``.
"""

import base64
import json
from pathlib import Path

BOOK = Path(__file__).parents[1]


def main() -> None:
    for path in sorted((BOOK / "chapters").glob("[0-9][0-9]_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tags = [t for t in cell["metadata"].get("tags", []) if t.startswith("picture:")]
            pngs = [
                o["data"]["image/png"]
                for o in cell.get("outputs", [])
                if "image/png" in o.get("data", {})
            ]
            for tag, png in zip(tags, pngs, strict=False):
                target = BOOK / "images" / f"{tag.removeprefix('picture:')}.png"
                target.write_bytes(base64.b64decode(png))
                print(target)


if __name__ == "__main__":
    main()
