"""Fetch the vendored front-end files again, from the npm registry, and check that they are the ones that are meant.

python tools/vendor.py            # fetch, check digests, write
python tools/vendor.py --check    # only check what is there
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHARTS, BROWSER_TESTS = ROOT / "src/safer_instruct/report/vendor", ROOT / "tests/browser/vendor"
FILES = {  # (package, file in it) -> (where it goes, SHA-256)
    ("echarts@6.1.0", "dist/echarts.min.js"): (CHARTS / "echarts.min.js", "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"),
    ("echarts@6.1.0", "LICENSE"): (CHARTS / "echarts-LICENSE", "634293835b43a6dd2094fa39182a3d9a6b9ca43b7fdb9ac354e8037af2a3093a"),
    ("echarts@6.1.0", "NOTICE"): (CHARTS / "echarts-NOTICE", "d491d358344f842685c1b1585970999db65fe30ecf7ef3867af8814f4016c016"),
    ("echarts@6.1.0", "licenses/LICENSE-d3"): (CHARTS / "d3-LICENSE", "e1211892da0b0e0585b7aebe8f98c1274fba15bafe47fa1f4ee8a7a502c06304"),
    ("zrender@6.1.0", "LICENSE"): (CHARTS / "zrender-LICENSE", "a681e9d183c72b4af4856935893805eb48c08f0f5a3f260203db7444c20fb98a"),
    ("axe-core@4.14.1", "axe.min.js"): (BROWSER_TESTS / "axe.min.js", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"),
    ("axe-core@4.14.1", "LICENSE"): (BROWSER_TESTS / "axe-LICENSE", "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fetch nothing")
    if not parser.parse_args().check:
        fetch()
    wrong = [str(path) for path, digest in FILES.values() if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest]
    if wrong:
        sys.exit(f"not the pinned files: {', '.join(wrong)}")
    print(f"{len(FILES)} files are the pinned ones")


def fetch() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for package in dict.fromkeys(package for package, _ in FILES):
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
            with tarfile.open(Path(folder) / f"{package.replace('@', '-')}.tgz") as archive:
                for (owner, name), (path, _) in FILES.items():
                    member = archive.extractfile(f"package/{name}") if owner == package else None
                    if member:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(member.read())


if __name__ == "__main__":
    main()
