"""Builds KenLM's `lmplz` and `build_binary` and puts them beside the Python that runs this (Linux).

    python tools/build_lmplz.py

Needs a C++ compiler, and cmake, ninja and setuptools in this Python's environment. The sources and
Boost come from the package index, pinned by hash in tools/lmplz.txt. The few Boost libraries the
programs load go to <environment>/lib/kenlm, found relative to the program: the environment depends
on no Boost of the system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PINS = Path(__file__).with_name("lmplz.txt")
PROGRAMS = ("lmplz", "build_binary")
# KenLM's own link list, and what these load in turn.
BOOST_LIBRARIES = (
    "atomic",
    "chrono",
    "program_options",
    "system",
    "thread",
    "unit_test_framework",
)
# Text arrives decompressed on stdin, so no compression headers are needed; Eigen is only for the
# interpolation program.
OPTIONAL_PACKAGES = ("ZLIB", "BZip2", "LibLZMA", "Eigen3")


def main() -> int:
    if not sys.platform.startswith("linux"):
        return fail(f"lmplz is built on Linux only, this is {sys.platform}; use Linux or WSL.")
    environment = Path(sys.prefix)
    bin_dir = Path(sys.executable).parent
    missing = [tool for tool in ("cmake", "ninja") if not (bin_dir / tool).exists()]
    if missing:
        return fail(f"{' and '.join(missing)} not in {bin_dir}: install requirements.lock first.")
    try:
        with tempfile.TemporaryDirectory(prefix="lmplz-") as folder:
            print("lmplz: downloading KenLM and Boost", flush=True)
            source, boost = download(Path(folder))
            print("lmplz: compiling (half a minute on two free cores)", flush=True)
            programs = compile_programs(Path(folder), source, boost, bin_dir)
            install(boost, environment / "lib" / "kenlm", programs, bin_dir)
        # After the build folder is gone: what runs now runs for good.
        try_out(bin_dir)
    except subprocess.CalledProcessError as error:
        print(error.stdout, file=sys.stderr)
        return fail(
            f"`{error.cmd[0]}` failed, its output is above. "
            "A C++ compiler (g++ or clang++) and access to the package index are needed."
        )
    print(f"lmplz: {' and '.join(PROGRAMS)} installed in {bin_dir}")
    return 0


def fail(message: str) -> int:
    print(f"lmplz: {message}", file=sys.stderr)
    return 1


def run(command: list[str], stdin: str = "") -> None:
    """Runs `command` silently; the output of a failure is in the exception."""
    subprocess.run(
        command,
        check=True,
        input=stdin,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def download(build: Path) -> tuple[Path, Path]:
    """Fetches and unpacks the pinned packages; returns KenLM's source and Boost's prefix."""
    packages = build / "packages"
    # Only the sources are wanted: without isolation pip installs no second set of build tools just
    # to read the package's metadata.
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--require-hashes"]
    pins = ["--requirement", str(PINS)]
    run([sys.executable, "-m", "pip", "download", *options, *pins, "--dest", str(packages)])
    (sdist,) = packages.glob("kenlm-*.tar.gz")
    (wheel,) = packages.glob("cmeel_boost-*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(build / "source", filter="data")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(build / "boost")
    (source,) = (build / "source").iterdir()
    return source, build / "boost" / "cmeel.prefix"


def compile_programs(build: Path, source: Path, boost: Path, bin_dir: Path) -> list[Path]:
    """Compiles for any processor of this architecture, so that a cluster can share the result."""
    tree = build / "tree"
    cmake = str(bin_dir / "cmake")
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": bin_dir / "ninja",
        "CMAKE_PREFIX_PATH": boost,
        "CMAKE_INSTALL_RPATH": "$ORIGIN/../lib/kenlm",
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "BUILD_TESTING": "OFF",
        **{f"CMAKE_DISABLE_FIND_PACKAGE_{name}": "ON" for name in OPTIONAL_PACKAGES},
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    run([cmake, "-G", "Ninja", "-S", str(source), "-B", str(tree), *definitions])
    run([cmake, "--build", str(tree), "--target", *PROGRAMS])
    return [tree / "bin" / name for name in PROGRAMS]


def install(boost: Path, library_dir: Path, programs: list[Path], bin_dir: Path) -> None:
    library_dir.mkdir(parents=True, exist_ok=True)
    for name in BOOST_LIBRARIES:
        (library,) = (boost / "lib").glob(f"libboost_{name}.so.*")
        replace(library, library_dir / library.name)
    for program in programs:
        replace(program, bin_dir / program.name)


def replace(source: Path, target: Path) -> None:
    """Copies by rename: a program that is running keeps its old file."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, part)
    part.replace(target)


def try_out(bin_dir: Path) -> None:
    """Builds a tiny model with the installed programs."""
    with tempfile.TemporaryDirectory(prefix="lmplz-") as folder:
        arpa, binary = Path(folder, "tiny.arpa"), Path(folder, "tiny.bin")
        text = "THE LAST TRAIN LEFT\nTHE TRAIN WAS LATE\n"
        lmplz = [str(bin_dir / "lmplz"), "--order", "2", "--discount_fallback", "--memory", "100M"]
        run([*lmplz, "--temp_prefix", f"{folder}/", "--arpa", str(arpa)], stdin=text)
        run([str(bin_dir / "build_binary"), "trie", str(arpa), str(binary)])


if __name__ == "__main__":
    sys.exit(main())
